#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/metrics/label_set.h"

namespace ddpo {

// The metrics of one scorer. Thread-safe.
struct ScorerMetrics {
  ScorerMetrics(prometheus::Registry& registry, const std::string& scorer);

  // A call that ended with this code.
  void CountRequest(absl::StatusCode code) { requests[absl::StatusCodeToString(code)].Increment(); }

  // By canonical code: OK, CANCELLED, …
  LabelSet<prometheus::Counter> requests;
  // By outcome: scored, failed, dropped (its caller had gone or its deadline had passed), refused
  // (no room).
  LabelSet<prometheus::Counter> items;
  prometheus::Gauge& queue_depth;
  prometheus::Gauge& queue_limit;
  prometheus::Histogram& batch_size;
  prometheus::Histogram& queue_wait_seconds;
  prometheus::Histogram& compute_seconds;
};

// What a reward server exports, all at zero from the start. Thread-safe.
class RewardServerMetrics {
 public:
  // The registry outlives the metrics.
  RewardServerMetrics(prometheus::Registry& registry, const std::vector<std::string>& scorers);

  // Names that the server does not know share one set under `other`: what callers ask for cannot
  // make the number of series grow.
  ScorerMetrics& ForScorer(absl::string_view name);

 private:
  std::map<std::string, ScorerMetrics, std::less<>> scorers_;
};

}  // namespace ddpo
