#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/base/clock.h"
#include "common/metrics/learner_metrics.h"
#include "ddpo/config/v1/config.pb.h"
#include "learner/checkpoint.h"
#include "learner/checkpoint_writer.h"
#include "learner/collective/collective.h"
#include "learner/coordinator.h"
#include "learner/epoch_report.h"
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
  Collective* collective = nullptr;
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
//
// Every rank runs it, in step with the others. Each collects and trains on its own share of the
// samples; the rewards of all make every rank's advantages. Rank 0 alone hands out tasks, publishes
// policies and writes the run's folder; a checkpoint needs nothing of the others, as all ranks have
// the same weights, optimizer and statistics.
class RunLoop {
 public:
  RunLoop(const config::v1::Config& config, RunParts parts, Clock* clock = Clock::Real());

  // Takes up rank 0's checkpoint if it has one; the other ranks pass nothing. Before Run.
  absl::Status Restore(const std::optional<Checkpoint>& checkpoint);

  // Where each rank takes trajectories; empty for the coordinator's own address. Before Run.
  void SetIngestAddresses(std::vector<std::string> addresses) {
    ingest_addresses_ = std::move(addresses);
  }

  // Runs the epochs that are left. OK when the run is complete; CANCELLED when `stopping` answered
  // true on a rank (asked several times a second), with everything saved that is complete; any
  // other status is why the run failed. DATA_LOSS names the ranks whose weights differ.
  absl::Status Run(const std::function<bool()>& stopping);

 private:
  bool leads() const { return parts_.collective->rank() == 0; }

  absl::Status RunEpoch(int64_t epoch, const std::function<bool()>& stopping);
  // Returns once all ranks have called it.
  absl::Status WaitForRanks();
  // From now on samples of epochs up to this one are taken, and then their tasks go out.
  absl::Status PlanUpTo(int64_t last_epoch);
  // Waits until every rank has its share of the epoch, and takes this rank's out.
  absl::StatusOr<std::vector<TrainingSample>> Collect(int64_t epoch,
                                                      const std::function<bool()>& stopping);
  // Tells the other ranks how far this one is and hears of them: whether all have their share.
  absl::StatusOr<bool> CompareRanks(int64_t epoch, bool complete, bool stopping);
  // Weighs the samples, trains on them and checks that all ranks have come to the same policy,
  // which it returns.
  absl::StatusOr<std::string> Update(const std::vector<TrainingSample>& samples,
                                     EpochReport* report);
  // With staleness: compares the actors' log-probabilities with those of the policy that they had.
  absl::Status CheckStaleLogProbs(absl::Span<const TrainingSample> samples, int64_t epoch,
                                  UpdateMetrics* update);
  // Counts the time since the last call that this rank has spent in calls with the others.
  void CountTimeWithRanks();
  // The trainer's policy; counts one that is not finite.
  absl::StatusOr<std::string> SerializePolicy();
  // Publishes a policy under this version, in which all tasks that wait for it go out.
  void Publish(int64_t version, std::string policy);
  // Hands a checkpoint to its writer.
  absl::Status Save(int64_t epochs_done);
  // Writes and exports what the epoch came to.
  absl::Status Report(EpochReport report);
  double ElapsedSeconds() const;

  const config::v1::Config config_;
  const RunParts parts_;
  Clock* const clock_;
  std::vector<std::string> ingest_addresses_;
  int64_t next_epoch_ = 0;
  int64_t planned_epochs_ = 0;
  int64_t saved_epochs_ = -1;                         // of the newest checkpoint handed over
  std::string scorer_digest_;                         // of the rewards that were trained on
  double elapsed_before_ = 0;                         // seconds, in earlier starts of the run
  std::map<int64_t, std::string> restored_policies_;  // older versions; moved out by Run
  double unreported_save_seconds_ = 0;
  absl::Duration counted_with_ranks_ = absl::ZeroDuration();
  absl::Time start_;
  CheckpointWriter checkpoint_writer_;
};

}  // namespace ddpo
