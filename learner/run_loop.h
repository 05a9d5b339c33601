#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "common/base/clock.h"
#include "common/metrics/learner_metrics.h"
#include "ddpo/config/v1/config.pb.h"
#include "learner/checkpoint.h"
#include "learner/coordinator.h"
#include "learner/policy_store.h"
#include "learner/policy_trainer.h"
#include "learner/run_files.h"
#include "learner/run_monitor.h"
#include "learner/sample_weighting.h"
#include "learner/task_planner.h"
#include "learner/trajectory_buffer.h"

namespace ddpo {

// What the run loop works with. All outlive it.
struct RunParts {
  TaskPlanner* planner = nullptr;
  Coordinator* coordinator = nullptr;
  TrajectoryBuffer* buffer = nullptr;
  PolicyStore* policies = nullptr;
  PolicyTrainer* trainer = nullptr;
  SampleWeighting* statistics = nullptr;
  RunMonitor* monitor = nullptr;
  RunFiles* files = nullptr;
  CheckpointStore* checkpoints = nullptr;
  LearnerMetrics* metrics = nullptr;
};

// The epochs of a run: plan, collect, update, publish, save. One thread calls it.
//
// Nothing that comes out depends on timing: tasks follow from the configuration, samples are
// trained in the order of task and index, and the policy version of a task is fixed.
class RunLoop {
 public:
  RunLoop(const config::v1::Config& config, RunParts parts, Clock* clock = Clock::Real())
      : config_(config), parts_(parts), clock_(clock) {}

  // Takes up a checkpoint. Before Run.
  absl::Status Restore(const Checkpoint& checkpoint);

  // Runs the epochs that are left. OK when the run is complete; CANCELLED when `stopping` answered
  // true (asked several times a second), with everything saved that is complete; any other status
  // is why the run failed.
  absl::Status Run(const std::function<bool()>& stopping);

 private:
  struct EpochResult {
    UpdateMetrics update;
    std::vector<double> rewards;
    std::map<std::string, double> reward_details;  // sums
    std::map<std::string, double> actor_seconds;   // sums
    int64_t staleness = 0;
    double collect_seconds = 0, advantage_seconds = 0, update_seconds = 0, publish_seconds = 0;
  };

  absl::Status RunEpoch(int64_t epoch, const std::function<bool()>& stopping);
  absl::StatusOr<std::vector<TrainingSample>> Collect(int64_t epoch,
                                                      const std::function<bool()>& stopping);
  // The trainer's policy; counts one that is not finite.
  absl::StatusOr<std::string> SerializePolicy();
  // Publishes the trainer's policy under this version, in which all tasks that wait for it go out.
  absl::Status Publish(int64_t version);
  absl::Status Save(int64_t epochs_done);
  absl::Status Report(int64_t epoch, const EpochResult& result);
  void PlanUpTo(int64_t last_epoch);

  const config::v1::Config config_;
  const RunParts parts_;
  Clock* const clock_;
  int64_t next_epoch_ = 0;
  int64_t planned_epochs_ = 0;
  int64_t saved_epochs_ = -1;                         // of the newest checkpoint
  double elapsed_before_ = 0;                         // seconds, in earlier starts of the run
  std::map<int64_t, std::string> restored_policies_;  // older versions; moved out by Run
  double unreported_save_seconds_ = 0;
  absl::Time start_;
};

}  // namespace ddpo
