#include "reward_server/scorers/alignment.h"

#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

constexpr char kPromptPlace[] = "{prompt}";

class AlignmentScorer : public Scorer {
 public:
  AlignmentScorer(std::shared_ptr<ImageJudge> judge, std::shared_ptr<const BertScorer> bert_score,
                  AlignmentOptions options)
      : judge_(std::move(judge)), bert_score_(std::move(bert_score)), options_(std::move(options)) {
    info_.name = "alignment";
    info_.kind = "vlm_judge";
    info_.description = absl::StrCat(
        "How well the image shows what the prompt says: BERTScore ", options_.value,
        " of what a vision-language model sees in it against `", options_.reference, "`");
    info_.digest = Sha256Hex(absl::StrCat(
        "alignment 1\n", judge_->digest(), "\n", bert_score_->digest(), "\n", options_.value, "\n",
        options_.max_new_tokens, "\n", options_.question, "\n", options_.reference));
    info_.max_score = 1;
    // Means of cosines; the quotient that F1 is has no bound, nor has anything rescaled.
    if (!bert_score_->is_rescaled() && options_.value != "f1") info_.min_score = -1;
    info_.needs_prompt = true;
    info_.max_batch_size = judge_->max_batch_size();
  }

  const ScorerInfo& info() const override { return info_; }

  std::vector<absl::StatusOr<ScoreValue>> ScoreBatch(
      absl::Span<const ScoringInput> inputs) override {
    std::vector<ImageQuestion> questions;
    questions.reserve(inputs.size());
    for (const ScoringInput& input : inputs) {
      questions.push_back({&input.image, options_.question, options_.max_new_tokens});
    }
    const std::vector<absl::StatusOr<std::string>> replies = judge_->Answer(questions);
    std::vector<absl::StatusOr<ScoreValue>> values;
    values.reserve(inputs.size());
    for (size_t i = 0; i < replies.size(); ++i) {
      values.push_back(replies[i].ok() ? Compare(*replies[i], inputs[i].prompt)
                                       : replies[i].status());
    }
    return values;
  }

 private:
  // One pair at a time: an image's reward must not depend on what else is in the batch, and
  // BERTScore's does where pairs of different lengths are filled up.
  absl::StatusOr<ScoreValue> Compare(const std::string& reply, const std::string& prompt) const {
    const std::string reference = absl::StrReplaceAll(options_.reference, {{kPromptPlace, prompt}});
    DDPO_ASSIGN_OR_RETURN(const std::vector<BertScore> scores,
                          bert_score_->Score({reply}, {reference}));
    ScoreValue value;
    value.details = {
        {"recall", scores[0].recall}, {"precision", scores[0].precision}, {"f1", scores[0].f1}};
    value.value = value.details.at(options_.value);
    value.text = reply;
    return value;
  }

  const std::shared_ptr<ImageJudge> judge_;
  const std::shared_ptr<const BertScorer> bert_score_;
  const AlignmentOptions options_;
  ScorerInfo info_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Scorer>> MakeAlignmentScorer(
    std::shared_ptr<ImageJudge> judge, std::shared_ptr<const BertScorer> bert_score,
    const AlignmentOptions& options) {
  if (options.value != "recall" && options.value != "precision" && options.value != "f1") {
    return absl::InvalidArgumentError(
        absl::StrCat("alignment: value `", options.value, "`, expected recall, precision or f1"));
  }
  if (!absl::StrContains(options.reference, kPromptPlace)) {
    return absl::InvalidArgumentError(absl::StrCat("alignment: reference `", options.reference,
                                                   "`, expected it to hold ", kPromptPlace));
  }
  return std::make_unique<AlignmentScorer>(std::move(judge), std::move(bert_score), options);
}

}  // namespace ddpo
