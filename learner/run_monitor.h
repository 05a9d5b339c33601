#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "ddpo/cluster/v1/cluster.pb.h"
#include "ddpo/cluster/v1/ranks.pb.h"
#include "learner/coordinator.h"
#include "learner/trajectory_buffer.h"

namespace ddpo {

// What the run is doing now, for GetStatus. Thread-safe.
class RunMonitor {
 public:
  // Coordinator and buffer outlive it. `failures` are those of the run's earlier starts, by reason.
  RunMonitor(const Coordinator* coordinator, const TrajectoryBuffer* buffer, int64_t epochs_total,
             std::map<std::string, int64_t> failures = {}, Clock* clock = Clock::Real());

  // `phase` as GetStatusResponse.phase documents. Counts as a heartbeat.
  void Enter(const std::string& phase, int64_t epoch);
  // The run's thread is alive, if only waiting.
  void Beat();
  // Time since the last heartbeat.
  absl::Duration SinceBeat() const;
  // The newest checkpoint holds so many epochs; `written` tells one that this start wrote.
  void SetCheckpoint(int64_t epochs, bool written);
  // Notes progress where samples, phase or policy have changed since the last call; its time.
  absl::Time LastProgress();
  // What the other ranks last said of the epoch.
  void SetOtherRanks(std::vector<cluster::v1::RankProgress> others);
  void SetLastMetrics(const std::string& json);
  void SetError(const std::string& error);

  // Of all ranks: this one's numbers as they are now, the others' as last heard.
  cluster::v1::GetStatusResponse Status() const;

 private:
  const Coordinator* const coordinator_;
  const TrajectoryBuffer* const buffer_;
  const int64_t epochs_total_;
  const std::map<std::string, int64_t> failures_;
  Clock* const clock_;
  mutable absl::Mutex mutex_;
  std::string phase_ ABSL_GUARDED_BY(mutex_) = "starting";
  int64_t epoch_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string last_metrics_ ABSL_GUARDED_BY(mutex_);
  std::string error_ ABSL_GUARDED_BY(mutex_);
  absl::Time beat_ ABSL_GUARDED_BY(mutex_);
  absl::Time progress_ ABSL_GUARDED_BY(mutex_);
  std::string progress_mark_ ABSL_GUARDED_BY(mutex_);
  int64_t checkpoint_epochs_ ABSL_GUARDED_BY(mutex_) = -1;
  absl::Time checkpoint_time_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  std::vector<cluster::v1::RankProgress> others_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ddpo
