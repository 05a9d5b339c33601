#pragma once

#include <prometheus/registry.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/end_times.h"
#include "common/metrics/learner_metrics.h"
#include "common/metrics/metrics_server.h"
#include "common/rpc/server.h"
#include "ddpo/config/v1/config.pb.h"
#include "learner/checkpoint.h"
#include "learner/collective/collective.h"
#include "learner/coordinator.h"
#include "learner/coordinator_service.h"
#include "learner/housekeeping.h"
#include "learner/ingest_service.h"
#include "learner/policy_service.h"
#include "learner/policy_store.h"
#include "learner/policy_trainer.h"
#include "learner/run_files.h"
#include "learner/run_loop.h"
#include "learner/run_monitor.h"
#include "learner/sample_weighting.h"
#include "learner/task_planner.h"
#include "learner/trajectory_buffer.h"

namespace ddpo {

struct LearnerOptions {
  config::v1::Config config;
  // The run's folder; an existing run goes on from its newest checkpoint.
  std::string run_dir;
  // SHA-256 over the base model's files, which actors must have too.
  std::string model_digest;
  std::string listen = "127.0.0.1:0";
  // Empty: no metrics are served.
  std::string metrics_listen = "127.0.0.1:0";
  bool allow_plain_text_anywhere = false;
  // As in RpcServerOptions.
  std::string health_listen = "";
  // Gets both addresses, a line each, once the learner serves; empty for none.
  std::string address_file;
  // How long the run's thread may do nothing until health checks of kProgressHealth fail.
  absl::Duration stall = absl::InfiniteDuration();
  // Longest time to wait at the end for actors to hear of it.
  absl::Duration farewell = kLearnerFarewell;
  // Longest time that calls under way are let end after that.
  absl::Duration drain = kLearnerDrain;
  // Where the run's folder lies.
  FileSystem* file_system = FileSystem::Real();
  // This rank's address as actors reach it, where it is not the one that `listen` gives. Rank 0 has
  // no use for it: actors know it.
  std::string advertise;
};

// One rank of a learner: ingest, run loop, metrics; rank 0 also has coordinator and publisher.
class Learner {
 public:
  // Takes up the run in the folder, and serves when this returns. All ranks start together.
  // Trainer, fresh, and collective outlive the learner; see JoinRanks.
  //   FAILED_PRECONDITION  the checkpoint is of another configuration (names the keys) or model, or
  //                        a rank's are another's
  //   DATA_LOSS            there are checkpoints and all are damaged
  //   INVALID_ARGUMENT     the configuration or an address
  //   UNAVAILABLE          another rank is gone
  static absl::StatusOr<std::unique_ptr<Learner>> Start(const LearnerOptions& options,
                                                        PolicyTrainer* trainer,
                                                        Collective* collective);

  // As RunLoop::Run; then tells the actors that it is over and stops serving. Where another rank is
  // gone (Collective::failed), actors are told nothing: the group is to start again. Call once.
  absl::Status Run(const std::function<bool()>& stopping);

  const std::string& address() const { return rpc_->address(); }
  uint64_t generation() const { return coordinator_->generation(); }
  cluster::v1::GetStatusResponse Status() const { return monitor_->Status(); }
  const LearnerMetrics& metrics() const { return *metrics_; }

 private:
  Learner(const LearnerOptions& options, Collective* collective);

  bool leads() const { return collective_->rank() == 0; }
  absl::StatusOr<std::optional<Checkpoint>> ReadCheckpoint();
  absl::Status MakeParts(PolicyTrainer* trainer);
  absl::Status Serve();
  // Compares this rank with the others and hears where they take trajectories.
  absl::Status MeetRanks();
  absl::Status ServeMetrics();
  // Tells the actors that the run is over, and waits for them to hear it.
  void SayFarewell(const absl::Status& status);
  // Notes why the run failed, for this start's answers and for the next one.
  void NoteFailure(const absl::Status& status);

  const LearnerOptions options_;
  Collective* const collective_;
  const std::shared_ptr<prometheus::Registry> registry_;
  RunFiles files_;
  CheckpointStore checkpoints_;
  // Destroyed in reverse: the servers first, then what they use.
  std::unique_ptr<LearnerMetrics> metrics_;
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<TrajectoryBuffer> buffer_;
  std::unique_ptr<PolicyStore> policies_;
  std::unique_ptr<SampleWeighting> statistics_;
  std::unique_ptr<TaskPlanner> planner_;
  std::unique_ptr<RunMonitor> monitor_;
  std::unique_ptr<RunLoop> loop_;
  std::unique_ptr<CoordinatorService> coordinator_service_;
  std::unique_ptr<IngestService> ingest_service_;
  std::unique_ptr<PolicyService> policy_service_;
  std::unique_ptr<RpcServer> rpc_;
  std::unique_ptr<MetricsServer> metrics_server_;
  std::unique_ptr<Housekeeping> housekeeping_;
};

}  // namespace ddpo
