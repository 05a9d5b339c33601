#pragma once

#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/metrics/learner_metrics.h"
#include "common/rpc/server.h"
#include "learner/coordinator.h"
#include "learner/run_monitor.h"
#include "learner/trajectory_buffer.h"

namespace ddpo {

// The name under which health checks hear whether the run's thread is alive: SERVING, or
// NOT_SERVING once it has done nothing for HousekeepingParts::stall. For liveness probes.
inline constexpr char kProgressHealth[] = "ddpo.learner.progress";

// What housekeeping looks after. All outlive it.
struct HousekeepingParts {
  Coordinator* coordinator = nullptr;
  const TrajectoryBuffer* buffer = nullptr;
  RunMonitor* monitor = nullptr;
  LearnerMetrics* metrics = nullptr;
  RpcServer* rpc = nullptr;
  // How long a phase of an epoch, as the update, may take; longer means that the thread hangs.
  absl::Duration stall = absl::InfiniteDuration();
};

// A thread that ends leases that ran out and brings the metrics of the parts that wait for others,
// and what health checks hear, up to date, several times a second as long as it lives.
class Housekeeping {
 public:
  // Looks once, then goes on in its thread.
  explicit Housekeeping(const HousekeepingParts& parts);
  ~Housekeeping();

 private:
  void Run();
  void Look();
  void UpdateMetrics();

  const HousekeepingParts parts_;
  absl::Mutex mutex_;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace ddpo
