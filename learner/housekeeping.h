#pragma once

#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/metrics/learner_metrics.h"
#include "learner/coordinator.h"
#include "learner/trajectory_buffer.h"

namespace ddpo {

// A thread that ends leases that ran out and brings the metrics of the parts that wait for others
// up to date, several times a second as long as it lives.
class Housekeeping {
 public:
  // All outlive it.
  Housekeeping(Coordinator* coordinator, const TrajectoryBuffer* buffer, LearnerMetrics* metrics);
  ~Housekeeping();

 private:
  void Run();
  void UpdateMetrics();

  Coordinator* const coordinator_;
  const TrajectoryBuffer* const buffer_;
  LearnerMetrics* const metrics_;
  absl::Mutex mutex_;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace ddpo
