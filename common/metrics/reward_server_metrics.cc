#include "common/metrics/reward_server_metrics.h"

#include "common/metrics/buckets.h"
#include "common/metrics/families.h"

namespace ddpo {
namespace {

std::vector<std::string> CanonicalCodes() {
  std::vector<std::string> codes;
  for (int code = 0; code <= static_cast<int>(absl::StatusCode::kUnauthenticated); ++code) {
    codes.push_back(absl::StatusCodeToString(static_cast<absl::StatusCode>(code)));
  }
  return codes;
}

}  // namespace

ScorerMetrics::ScorerMetrics(prometheus::Registry& r, const std::string& scorer)
    : requests(CounterFamily(r, "ddpo_reward_requests_total",
                             "Calls that ended, by scorer and canonical status code."),
               "code", CanonicalCodes(), {{"scorer", scorer}}),
      items(CounterFamily(r, "ddpo_reward_items_total",
                          "Images that left the server, by scorer and outcome: scored, failed, "
                          "dropped (caller gone or deadline passed) or refused (no room)."),
            "outcome", {"scored", "failed", "dropped", "refused"}, {{"scorer", scorer}}),
      queue_depth(GaugeFamily(r, "ddpo_reward_queue_depth", "Images that wait for the scorer.")
                      .Add({{"scorer", scorer}})),
      queue_limit(GaugeFamily(r, "ddpo_reward_queue_limit",
                              "Images that may wait for the scorer; further ones are refused.")
                      .Add({{"scorer", scorer}})),
      batch_size(HistogramFamily(r, "ddpo_reward_batch_size", "Images scored in one call.")
                     .Add({{"scorer", scorer}}, BatchSizes())),
      queue_wait_seconds(HistogramFamily(r, "ddpo_reward_queue_wait_seconds",
                                         "Seconds from an image's arrival to its batch's start.")
                             .Add({{"scorer", scorer}}, ScoringSeconds())),
      compute_seconds(HistogramFamily(r, "ddpo_reward_compute_seconds",
                                      "Seconds that the scorer took for a batch.")
                          .Add({{"scorer", scorer}}, ScoringSeconds())) {}

RewardServerMetrics::RewardServerMetrics(prometheus::Registry& registry,
                                         const std::vector<std::string>& scorers) {
  scorers_.try_emplace("other", registry, "other");
  for (const std::string& scorer : scorers) scorers_.try_emplace(scorer, registry, scorer);
}

ScorerMetrics& RewardServerMetrics::ForScorer(absl::string_view name) {
  const auto scorer = scorers_.find(name);
  return scorer == scorers_.end() ? scorers_.find("other")->second : scorer->second;
}

}  // namespace ddpo
