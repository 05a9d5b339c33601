#pragma once

#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "ddpo/cluster/v1/cluster.pb.h"
#include "learner/coordinator.h"
#include "learner/trajectory_buffer.h"

namespace ddpo {

// What the run is doing now, for GetStatus. Thread-safe.
class RunMonitor {
 public:
  // Coordinator and buffer outlive it.
  RunMonitor(const Coordinator* coordinator, const TrajectoryBuffer* buffer, int64_t epochs_total)
      : coordinator_(coordinator), buffer_(buffer), epochs_total_(epochs_total) {}

  // `phase` as GetStatusResponse.phase documents.
  void Enter(const std::string& phase, int64_t epoch);
  void SetLastMetrics(const std::string& json);
  void SetError(const std::string& error);

  cluster::v1::GetStatusResponse Status() const;

 private:
  const Coordinator* const coordinator_;
  const TrajectoryBuffer* const buffer_;
  const int64_t epochs_total_;
  mutable absl::Mutex mutex_;
  std::string phase_ ABSL_GUARDED_BY(mutex_) = "starting";
  int64_t epoch_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string last_metrics_ ABSL_GUARDED_BY(mutex_);
  std::string error_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ddpo
