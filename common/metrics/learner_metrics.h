#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <cstdint>

#include "absl/types/span.h"
#include "common/metrics/label_set.h"

namespace ddpo {

// What a learner rank exports, all at zero from the start. Thread-safe. The help texts, in the .cc,
// are the documentation of each.
class LearnerMetrics {
 public:
  // The registry outlives the metrics.
  explicit LearnerMetrics(prometheus::Registry& registry);

  prometheus::Gauge& generation;
  prometheus::Gauge& epoch;
  prometheus::Gauge& epochs_target;
  prometheus::Gauge& policy_version;

  // The ledger: received = trained + Σ dropped + buffered. `dropped` by reason: duplicate,
  // stale_generation, unknown_task, malformed, other_scorer, discarded_at_stop.
  prometheus::Counter& samples_received;
  prometheus::Counter& samples_trained;
  LabelSet<prometheus::Counter> samples_dropped;
  prometheus::Gauge& samples_buffered;

  // The last epoch's rewards and update.
  prometheus::Gauge& reward_mean;
  prometheus::Gauge& reward_stddev;
  prometheus::Gauge& near_constant_ratio;
  prometheus::Gauge& loss;
  prometheus::Gauge& approx_kl;
  prometheus::Gauge& clip_fraction;
  prometheus::Gauge& ratio_mean;
  prometheus::Gauge& logprob_abs_diff_max;
  prometheus::Gauge& grad_norm;
  prometheus::Gauge& staleness_max;
  prometheus::Gauge& staleness_bound;
  prometheus::Counter& optimizer_steps;
  prometheus::Counter& weights_unchanged;
  prometheus::Counter& non_finite_refused;
  // By reason: non_finite, tasks, ranks, weights, other. Goes on where the run's earlier starts
  // left it.
  LabelSet<prometheus::Counter> run_failures;

  // By phase of an epoch: collect, advantages, update, publish, checkpoint.
  LabelSet<prometheus::Histogram> phase_seconds;
  // By cause: samples (none to train on), ranks (others are not that far), actors (none to take the
  // policy).
  LabelSet<prometheus::Counter> idle_seconds;
  prometheus::Gauge& progress_timestamp;
  prometheus::Gauge& checkpoint_timestamp;
  prometheus::Gauge& checkpoint_epochs;
  prometheus::Gauge& checkpoint_interval_epochs;

  prometheus::Gauge& leases_outstanding;
  prometheus::Counter& leases_expired;
  prometheus::Counter& tasks_failed;
  prometheus::Gauge& actors_expected;

  // Sets how many live actors run which version from the versions that they acknowledged last:
  // those with the newest, one behind, and two or more behind or none at all (−1).
  void SetActors(absl::Span<const int64_t> acknowledged_versions, int64_t newest_version);

 private:
  // By lag behind the newest version: 0, 1, 2+.
  prometheus::Gauge& actors_lag_0_;
  prometheus::Gauge& actors_lag_1_;
  prometheus::Gauge& actors_lag_2_;
};

}  // namespace ddpo
