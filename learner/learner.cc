#include "learner/learner.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/logging.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/config/prompts.h"
#include "learner/sample_weighting_factory.h"

namespace ddpo {
namespace {

// How often the learner looks whether all actors have heard of the end.
constexpr absl::Duration kLook = absl::Milliseconds(10);

absl::Status CheckSameRun(const Checkpoint& checkpoint, const config::v1::Config& config,
                          const std::string& model_digest) {
  if (checkpoint.model_digest != model_digest) {
    return absl::FailedPreconditionError(
        absl::StrCat("the run's checkpoint was made with another base model: digest ",
                     checkpoint.model_digest, ", that of ", config.model(), " is ", model_digest));
  }
  DDPO_ASSIGN_OR_RETURN(const config::v1::Config before,
                        ParseConfig(checkpoint.config_yaml, "the checkpoint's config.yaml"));
  // What leaves the numbers as they are may change: a longer run, other processes, the model's
  // place, other savings.
  config::v1::Config allowed = before;
  allowed.set_model(config.model());
  allowed.mutable_run()->set_epochs(config.run().epochs());
  allowed.mutable_run()->set_save_every(config.run().save_every());
  allowed.mutable_cluster()->set_actors(config.cluster().actors());
  allowed.mutable_cluster()->set_reward_servers(config.cluster().reward_servers());
  allowed.mutable_cluster()->set_listen_host(config.cluster().listen_host());
  allowed.mutable_cluster()->set_lease_seconds(config.cluster().lease_seconds());
  allowed.mutable_cluster()->set_max_task_attempts(config.cluster().max_task_attempts());
  allowed.mutable_training()->set_parallel_backwards(config.training().parallel_backwards());
  allowed.mutable_training()->set_gradient_checkpointing(
      config.training().gradient_checkpointing());
  *allowed.mutable_evaluation() = config.evaluation();
  *allowed.mutable_reward_server() = config.reward_server();
  *allowed.mutable_checkpoint() = config.checkpoint();
  *allowed.mutable_security() = config.security();
  const auto differences = ConfigDifferences(allowed, config);
  if (differences.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the run's checkpoint was made with another configuration: ",
                   absl::StrJoin(differences, "; ")));
}

}  // namespace

Learner::Learner(const LearnerOptions& options)
    : options_(options),
      registry_(std::make_shared<prometheus::Registry>()),
      files_(options.run_dir),
      checkpoints_(files_.checkpoints_dir(), options.config.checkpoint().keep()) {}

absl::StatusOr<std::unique_ptr<Learner>> Learner::Start(const LearnerOptions& options,
                                                        PolicyTrainer* trainer) {
  if (options.config.cluster().learner_ranks() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("cluster.learner_ranks: ", options.config.cluster().learner_ranks(),
                     ": this learner runs as one rank"));
  }
  auto learner = std::unique_ptr<Learner>(new Learner(options));
  DDPO_RETURN_IF_ERROR(learner->files_.Prepare());
  DDPO_ASSIGN_OR_RETURN(const std::optional<Checkpoint> checkpoint, learner->ReadCheckpoint());
  // Durable before anything is served: no two starts speak with the same number.
  DDPO_ASSIGN_OR_RETURN(const uint64_t generation, learner->files_.NextGeneration());
  DDPO_RETURN_IF_ERROR(learner->MakeParts(trainer, generation));
  if (checkpoint.has_value()) DDPO_RETURN_IF_ERROR(learner->loop_->Restore(*checkpoint));
  DDPO_RETURN_IF_ERROR(learner->Serve());
  return learner;
}

absl::StatusOr<std::optional<Checkpoint>> Learner::ReadCheckpoint() {
  std::vector<std::string> warnings;
  auto checkpoint = checkpoints_.ReadNewest(&warnings);
  for (const std::string& warning : warnings) LogError(warning);
  DDPO_RETURN_IF_ERROR(checkpoint.status());
  if (checkpoint->has_value()) {
    DDPO_RETURN_IF_ERROR(CheckSameRun(**checkpoint, options_.config, options_.model_digest));
    LogInfo("going on from the checkpoint after ", (*checkpoint)->epochs_done, " epochs");
  }
  return checkpoint;
}

absl::Status Learner::MakeParts(PolicyTrainer* trainer, uint64_t generation) {
  const config::v1::Config& config = options_.config;
  DDPO_ASSIGN_OR_RETURN(std::vector<std::string> prompts, LoadPrompts(config.prompts()));
  DDPO_ASSIGN_OR_RETURN(statistics_, CreateSampleWeighting(config.training()));
  metrics_ = std::make_unique<LearnerMetrics>(*registry_);
  metrics_->generation.Set(static_cast<double>(generation));
  metrics_->epochs_target.Set(config.run().epochs());
  metrics_->staleness_bound.Set(config.training().max_staleness());
  metrics_->checkpoint_interval_epochs.Set(config.checkpoint().every_epochs());
  metrics_->actors_expected.Set(config.cluster().actors());
  DDPO_ASSIGN_OR_RETURN(const auto failures, files_.Failures());
  for (const auto& [reason, count] : failures) {
    metrics_->run_failures[reason].Increment(static_cast<double>(count));
  }

  CoordinatorOptions coordinator_options;
  coordinator_options.run_id =
      absl::StrCat(config.run().name(), "-", ConfigDigest(config).substr(0, 8));
  coordinator_options.generation = generation;
  // An actor has certificates of its own.
  config::v1::Config for_actors = config;
  for_actors.clear_security();
  coordinator_options.config = for_actors.SerializeAsString();
  coordinator_options.model_digest = options_.model_digest;
  coordinator_options.lease_duration = absl::Seconds(config.cluster().lease_seconds());
  coordinator_options.max_task_attempts = config.cluster().max_task_attempts();
  coordinator_ = std::make_unique<Coordinator>(coordinator_options);
  buffer_ = std::make_unique<TrajectoryBuffer>(config.sampling().num_steps(), /*rank=*/0);
  // Tasks sample with versions down to max_staleness behind the newest, which is one more.
  policies_ = std::make_unique<PolicyStore>(config.training().max_staleness() + 2);
  planner_ = std::make_unique<TaskPlanner>(config, std::move(prompts));
  monitor_ = std::make_unique<RunMonitor>(coordinator_.get(), buffer_.get(), config.run().epochs(),
                                          failures);
  RunParts parts;
  parts.planner = planner_.get();
  parts.coordinator = coordinator_.get();
  parts.buffer = buffer_.get();
  parts.policies = policies_.get();
  parts.trainer = trainer;
  parts.statistics = statistics_.get();
  parts.monitor = monitor_.get();
  parts.files = &files_;
  parts.checkpoints = &checkpoints_;
  parts.metrics = metrics_.get();
  loop_ = std::make_unique<RunLoop>(config, parts);
  return absl::OkStatus();
}

absl::Status Learner::Serve() {
  coordinator_service_ = std::make_unique<CoordinatorService>(coordinator_.get(), monitor_.get());
  ingest_service_ = std::make_unique<IngestService>(coordinator_.get(), buffer_.get());
  policy_service_ = std::make_unique<PolicyService>(coordinator_.get(), policies_.get());
  RpcServerOptions server_options;
  server_options.listen = options_.listen;
  server_options.allow_plain_text_anywhere = options_.allow_plain_text_anywhere;
  server_options.tls = options_.config.security().tls();
  server_options.health_listen = options_.health_listen;
  DDPO_ASSIGN_OR_RETURN(
      rpc_, RpcServer::Start(server_options, {coordinator_service_.get(), ingest_service_.get(),
                                              policy_service_.get()}));
  std::string addresses = rpc_->address() + "\n";
  if (!options_.metrics_listen.empty()) {
    DDPO_RETURN_IF_ERROR(ServeMetrics());
    absl::StrAppend(&addresses, metrics_server_->address(), "\n");
  }
  LogInfo("serves on ", rpc_->address(), ", generation ", generation());
  HousekeepingParts housekeeping;
  housekeeping.coordinator = coordinator_.get();
  housekeeping.buffer = buffer_.get();
  housekeeping.monitor = monitor_.get();
  housekeeping.metrics = metrics_.get();
  housekeeping.rpc = rpc_.get();
  housekeeping.stall = options_.stall;
  housekeeping_ = std::make_unique<Housekeeping>(housekeeping);
  if (options_.address_file.empty()) return absl::OkStatus();
  return WriteFileAtomically(options_.address_file, addresses);
}

absl::Status Learner::ServeMetrics() {
  MetricsServerOptions metrics_options;
  metrics_options.listen = options_.metrics_listen;
  metrics_options.allow_plain_text_anywhere = options_.allow_plain_text_anywhere;
  metrics_options.process = "ddpo-learner";
  DDPO_ASSIGN_OR_RETURN(metrics_server_, MetricsServer::Start(metrics_options, registry_));
  LogInfo("metrics on ", metrics_server_->address());
  return absl::OkStatus();
}

void Learner::NoteFailure(const absl::Status& status) {
  monitor_->SetError(status.ToString());
  const std::string reason = metrics_->non_finite_refused.Value() > 0 ? "non_finite"
                             : !coordinator_->error().ok()            ? "tasks"
                                                                      : "other";
  metrics_->run_failures[reason].Increment();
  const absl::Status noted = files_.CountFailure(reason);
  if (!noted.ok()) LogError("the failure is not noted in the run's folder: ", noted.ToString());
}

absl::Status Learner::Run(const std::function<bool()>& stopping) {
  const absl::Status status = loop_->Run(stopping);
  if (!status.ok() && !absl::IsCancelled(status)) NoteFailure(status);
  coordinator_->End(status.ok() ? "the run is complete" : std::string(status.message()));
  // Actors that are between two calls hear of the end when they ask next; those that have a batch
  // in hand may be too late.
  const absl::Time farewell = absl::Now() + options_.farewell;
  while (!coordinator_->AllActorsToldEnd() && absl::Now() < farewell) absl::SleepFor(kLook);
  rpc_->Drain(options_.drain);
  return status;
}

}  // namespace ddpo
