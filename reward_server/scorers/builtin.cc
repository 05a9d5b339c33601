#include "reward_server/scorers/builtin.h"

#include <memory>
#include <utility>

#include "common/base/status_macros.h"
#include "reward_server/judges/chat_endpoint_judge.h"
#include "reward_server/scorers/aesthetic.h"
#include "reward_server/scorers/counting.h"
#include "reward_server/scorers/jpeg_size.h"

namespace ddpo {

absl::StatusOr<ScorerRegistry> BuiltinScorers(const config::v1::ScoringConfig& config) {
  ScorerRegistry registry;
  DDPO_RETURN_IF_ERROR(RegisterJpegSizeScorers(&registry));
  if (!config.aesthetic().clip().empty()) {
    const AestheticOptions options{.clip = config.aesthetic().clip(),
                                   .head = config.aesthetic().head(),
                                   .dtype = config.dtype(),
                                   .device = config.device()};
    DDPO_RETURN_IF_ERROR(
        registry.Register("aesthetic", [options] { return MakeAestheticScorer(options); }));
  }
  const config::v1::ChatEndpointConfig& endpoint = config.judge().endpoint();
  if (endpoint.base_url().empty()) return registry;
  ChatEndpointOptions options;
  options.base_url = endpoint.base_url();
  options.model = endpoint.model();
  options.api_key_file = endpoint.api_key_file();
  options.timeout = absl::Seconds(endpoint.timeout_seconds());
  options.max_retries = endpoint.max_retries();
  DDPO_ASSIGN_OR_RETURN(std::shared_ptr<ImageJudge> judge, CreateChatEndpointJudge(options));
  DDPO_RETURN_IF_ERROR(registry.Register(
      "counting",
      [judge]() -> absl::StatusOr<std::unique_ptr<Scorer>> { return MakeCountingScorer(judge); }));
  return registry;
}

}  // namespace ddpo
