#include "reward_server/scorers/weighted_sum.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

class WeightedSumScorer : public Scorer {
 public:
  WeightedSumScorer(const std::string& name, std::vector<WeightedPart> parts)
      : parts_(std::move(parts)) {
    info_.name = name;
    info_.kind = "weighted_sum";
    info_.min_score = 0;
    info_.max_score = 0;
    info_.gains_from_batching = false;
    info_.thread_safe = true;
    std::vector<std::string> terms;
    std::string identity = "weighted_sum 1";
    for (const WeightedPart& part : parts_) {
      const ScorerInfo& info = part.scorer->info();
      terms.push_back(absl::StrCat(part.weight, " × ", info.name));
      absl::StrAppend(&identity, "\n", part.weight, " ", info.name, " ", info.digest);
      Bound(info, part.weight);
      info_.needs_prompt = info_.needs_prompt || info.needs_prompt;
      info_.max_batch_size = std::min(info_.max_batch_size, info.max_batch_size);
      info_.gains_from_batching = info_.gains_from_batching || info.gains_from_batching;
      info_.thread_safe = info_.thread_safe && info.thread_safe;
    }
    info_.description = absl::StrCat("The sum ", absl::StrJoin(terms, " + "));
    info_.digest = Sha256Hex(identity);
  }

  const ScorerInfo& info() const override { return info_; }

  std::vector<absl::StatusOr<ScoreValue>> ScoreBatch(
      absl::Span<const ScoringInput> inputs) override {
    std::vector<absl::StatusOr<ScoreValue>> sums(inputs.size(), ScoreValue{});
    for (const WeightedPart& part : parts_) {
      const std::vector<absl::StatusOr<ScoreValue>> scores = part.scorer->ScoreBatch(inputs);
      for (size_t i = 0; i < sums.size(); ++i) {
        if (sums[i].ok()) Add(part, i < scores.size() ? scores[i] : Missing(), &sums[i]);
      }
    }
    return sums;
  }

 private:
  static absl::Status Missing() { return absl::InternalError("gave no outcome"); }

  static void Add(const WeightedPart& part, const absl::StatusOr<ScoreValue>& score,
                  absl::StatusOr<ScoreValue>* sum) {
    const std::string& name = part.scorer->info().name;
    if (!score.ok()) {
      *sum =
          absl::Status(score.status().code(), absl::StrCat(name, ": ", score.status().message()));
      return;
    }
    ScoreValue& total = **sum;
    total.value += part.weight * score->value;
    total.details[absl::StrCat(name, ".value")] = score->value;
    for (const auto& [key, value] : score->details) {
      total.details[absl::StrCat(name, ".", key)] = value;
    }
    if (score->text.empty()) return;
    absl::StrAppend(&total.text, total.text.empty() ? "" : "\n", name, ": ", score->text);
  }

  // Widens the sum's bounds by a part's; a part without one leaves the sum without.
  void Bound(const ScorerInfo& info, double weight) {
    const std::optional<double>& low = weight < 0 ? info.max_score : info.min_score;
    const std::optional<double>& high = weight < 0 ? info.min_score : info.max_score;
    const auto add = [weight](std::optional<double>& bound, const std::optional<double>& part) {
      if (!bound.has_value()) return;
      bound = part.has_value() ? std::optional<double>(*bound + weight * *part) : std::nullopt;
    };
    add(info_.min_score, low);
    add(info_.max_score, high);
  }

  const std::vector<WeightedPart> parts_;
  ScorerInfo info_;
};

}  // namespace

std::unique_ptr<Scorer> MakeWeightedSumScorer(const std::string& name,
                                              std::vector<WeightedPart> parts) {
  return std::make_unique<WeightedSumScorer>(name, std::move(parts));
}

absl::Status RegisterWeightedSums(const config::v1::ScoringConfig& config,
                                  ScorerRegistry* registry) {
  for (const config::v1::WeightedSumConfig& sum : config.sums()) {
    const auto fault = [&sum](const auto&... what) {
      return absl::InvalidArgumentError(
          absl::StrCat("scoring.sums: the sum '", sum.name(), "' ", what...));
    };
    // Only what comes before it, so that no sum holds itself.
    const auto known = std::make_shared<const ScorerRegistry>(*registry);
    const std::vector<std::string> names = known->Names();
    if (sum.terms().empty()) return fault("has no terms");
    for (const config::v1::WeightedTerm& term : sum.terms()) {
      if (std::find(names.begin(), names.end(), term.scorer()) == names.end()) {
        return fault("adds '", term.scorer(), "', which is none of ", absl::StrJoin(names, ", "));
      }
    }
    const absl::Status registered =
        registry->Register(sum.name(), [sum, known]() -> absl::StatusOr<std::unique_ptr<Scorer>> {
          std::vector<WeightedPart> parts;
          for (const config::v1::WeightedTerm& term : sum.terms()) {
            DDPO_ASSIGN_OR_RETURN(std::unique_ptr<Scorer> scorer, known->Make(term.scorer()));
            parts.push_back({std::move(scorer), term.weight()});
          }
          return MakeWeightedSumScorer(sum.name(), std::move(parts));
        });
    if (!registered.ok()) return fault("has the name of another scorer");
  }
  return absl::OkStatus();
}

}  // namespace ddpo
