#include "reward_server/scorers/builtin.h"

#include <functional>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/nn/bert_score.h"
#include "reward_server/judges/chat_endpoint_judge.h"
#include "reward_server/judges/llava_judge.h"
#include "reward_server/scorers/aesthetic.h"
#include "reward_server/scorers/alignment.h"
#include "reward_server/scorers/counting.h"
#include "reward_server/scorers/jpeg_size.h"
#include "reward_server/scorers/near_constant.h"
#include "reward_server/scorers/weighted_sum.h"

namespace ddpo {

namespace {

absl::Status RegisterAesthetic(const config::v1::ScoringConfig& config, ScorerRegistry* registry) {
  if (config.aesthetic().clip().empty()) {
    registry->Explain("aesthetic", "scoring.aesthetic.clip");
    return absl::OkStatus();
  }
  const AestheticOptions options{.clip = config.aesthetic().clip(),
                                 .head = config.aesthetic().head(),
                                 .dtype = config.dtype(),
                                 .device = config.device()};
  return registry->Register("aesthetic", [options] { return MakeAestheticScorer(options); });
}

// Makes a model at the first call and hands it out again at the others. Not thread-safe, as no
// registry is.
template <typename Model>
class Shared {
 public:
  using Make = std::function<absl::StatusOr<std::unique_ptr<Model>>()>;
  explicit Shared(Make make) : make_(std::move(make)) {}

  absl::StatusOr<std::shared_ptr<Model>> Get() {
    if (model_ == nullptr) {
      DDPO_ASSIGN_OR_RETURN(model_, make_());
    }
    return model_;
  }

 private:
  const Make make_;
  std::shared_ptr<Model> model_;
};

absl::StatusOr<std::unique_ptr<ImageJudge>> MakeJudge(const config::v1::ScoringConfig& config) {
  if (!config.judge().llava().empty()) {
    return CreateLlavaJudge(
        {.model = config.judge().llava(), .dtype = config.dtype(), .device = config.device()});
  }
  const config::v1::ChatEndpointConfig& endpoint = config.judge().endpoint();
  ChatEndpointOptions options;
  options.base_url = endpoint.base_url();
  options.model = endpoint.model();
  options.api_key_file = endpoint.api_key_file();
  options.timeout = absl::Seconds(endpoint.timeout_seconds());
  options.max_retries = endpoint.max_retries();
  return CreateChatEndpointJudge(options);
}

absl::StatusOr<std::unique_ptr<BertScorer>> LoadBertScorer(
    const config::v1::ScoringConfig& config) {
  const config::v1::BertScoreConfig& bert_score = config.bert_score();
  BertScorerOptions options;
  DDPO_ASSIGN_OR_RETURN(options.encoder_dir, FindResource(bert_score.encoder()));
  if (bert_score.layer() > 0) options.layer = bert_score.layer();
  if (!bert_score.baseline().empty()) {
    DDPO_ASSIGN_OR_RETURN(options.baseline_file, FindResource(bert_score.baseline()));
  }
  options.dtype = config.dtype();
  options.device = config.device();
  return BertScorer::Load(options);
}

// The scorers that ask a vision-language model.
absl::Status RegisterJudged(const config::v1::ScoringConfig& config, ScorerRegistry* registry) {
  const bool has_llava = !config.judge().llava().empty();
  const bool has_endpoint = !config.judge().endpoint().base_url().empty();
  constexpr char kJudge[] = "scoring.judge.llava or scoring.judge.endpoint.base_url";
  if (!has_llava && !has_endpoint) {
    registry->Explain("counting", kJudge);
    registry->Explain("alignment", absl::StrCat(kJudge, ", and scoring.bert_score.encoder"));
    return absl::OkStatus();
  }
  if (has_llava && has_endpoint) {
    return absl::InvalidArgumentError(
        "scoring: judge.llava and judge.endpoint.base_url are both set, expected one of them");
  }
  const auto judge = std::make_shared<Shared<ImageJudge>>([config] { return MakeJudge(config); });
  // A wrong address or key file is known before anything asks for the scorer.
  if (has_endpoint) DDPO_RETURN_IF_ERROR(judge->Get().status());
  const int max_new_tokens = config.judge().max_new_tokens();
  DDPO_RETURN_IF_ERROR(registry->Register(
      "counting", [judge, max_new_tokens]() -> absl::StatusOr<std::unique_ptr<Scorer>> {
        DDPO_ASSIGN_OR_RETURN(std::shared_ptr<ImageJudge> asked, judge->Get());
        return MakeCountingScorer(std::move(asked), max_new_tokens);
      }));
  if (config.bert_score().encoder().empty()) {
    registry->Explain("alignment", "scoring.bert_score.encoder");
    return absl::OkStatus();
  }
  const AlignmentOptions options{.question = config.judge().question(),
                                 .max_new_tokens = max_new_tokens,
                                 .value = config.bert_score().value(),
                                 .reference = config.bert_score().reference()};
  const auto bert_score =
      std::make_shared<Shared<BertScorer>>([config] { return LoadBertScorer(config); });
  return registry->Register(
      "alignment", [judge, bert_score, options]() -> absl::StatusOr<std::unique_ptr<Scorer>> {
        // The small model first, so that its faults do not wait for the large one.
        DDPO_ASSIGN_OR_RETURN(std::shared_ptr<BertScorer> compared, bert_score->Get());
        DDPO_ASSIGN_OR_RETURN(std::shared_ptr<ImageJudge> asked, judge->Get());
        return MakeAlignmentScorer(std::move(asked), std::move(compared), options);
      });
}

}  // namespace

absl::StatusOr<ScorerRegistry> BuiltinScorers(const config::v1::ScoringConfig& config) {
  ScorerRegistry registry;
  DDPO_RETURN_IF_ERROR(RegisterJpegSizeScorers(&registry));
  DDPO_RETURN_IF_ERROR(RegisterAesthetic(config, &registry));
  DDPO_RETURN_IF_ERROR(RegisterJudged(config, &registry));
  DDPO_RETURN_IF_ERROR(RegisterWeightedSums(config, &registry));
  registry.Decorate([threshold = config.near_constant_std()](std::unique_ptr<Scorer> scorer) {
    return FlagNearConstantImages(std::move(scorer), threshold);
  });
  return registry;
}

}  // namespace ddpo
