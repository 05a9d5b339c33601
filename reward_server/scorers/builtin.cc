#include "reward_server/scorers/builtin.h"

#include <memory>
#include <utility>

#include "common/base/status_macros.h"
#include "reward_server/judges/chat_endpoint_judge.h"
#include "reward_server/scorers/aesthetic.h"
#include "reward_server/scorers/counting.h"
#include "reward_server/scorers/jpeg_size.h"
#include "reward_server/scorers/near_constant.h"
#include "reward_server/scorers/weighted_sum.h"

namespace ddpo {

namespace {

absl::Status RegisterAesthetic(const config::v1::ScoringConfig& config, ScorerRegistry* registry) {
  if (config.aesthetic().clip().empty()) return absl::OkStatus();
  const AestheticOptions options{.clip = config.aesthetic().clip(),
                                 .head = config.aesthetic().head(),
                                 .dtype = config.dtype(),
                                 .device = config.device()};
  return registry->Register("aesthetic", [options] { return MakeAestheticScorer(options); });
}

// The scorers that ask a vision-language model.
absl::Status RegisterJudged(const config::v1::ScoringConfig& config, ScorerRegistry* registry) {
  const config::v1::ChatEndpointConfig& endpoint = config.judge().endpoint();
  if (endpoint.base_url().empty()) return absl::OkStatus();
  ChatEndpointOptions options;
  options.base_url = endpoint.base_url();
  options.model = endpoint.model();
  options.api_key_file = endpoint.api_key_file();
  options.timeout = absl::Seconds(endpoint.timeout_seconds());
  options.max_retries = endpoint.max_retries();
  DDPO_ASSIGN_OR_RETURN(std::shared_ptr<ImageJudge> judge, CreateChatEndpointJudge(options));
  return registry->Register("counting", [judge]() -> absl::StatusOr<std::unique_ptr<Scorer>> {
    return MakeCountingScorer(judge);
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
