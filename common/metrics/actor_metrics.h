#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include "common/metrics/label_set.h"

namespace ddpo {

// What an actor exports, all at zero from the start. Thread-safe. The help texts, in the .cc, are
// the documentation of each.
struct ActorMetrics {
  // The registry outlives the metrics.
  explicit ActorMetrics(prometheus::Registry& registry);

  prometheus::Gauge& policy_version;
  prometheus::Counter& policies_refused;
  prometheus::Counter& samples;
  prometheus::Counter& samples_redelivered;
  // By outcome: delivered, failed, lost.
  LabelSet<prometheus::Counter> tasks;
  // By phase of a batch: denoise, decode, reward, deliver.
  LabelSet<prometheus::Histogram> phase_seconds;
  // By cause: task, policy, reward, delivery.
  LabelSet<prometheus::Counter> idle_seconds;
  prometheus::Counter& reward_failures;
  prometheus::Gauge& queue_depth;
};

}  // namespace ddpo
