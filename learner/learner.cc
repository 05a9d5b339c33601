#include "learner/learner.h"

#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/address.h"
#include "common/base/files.h"
#include "common/base/kill_point.h"
#include "common/base/logging.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/config/prompts.h"
#include "common/config/same_run.h"
#include "common/rpc/retry.h"
#include "ddpo/cluster/v1/ranks.pb.h"
#include "learner/rank_exchange.h"
#include "learner/sample_weighting_factory.h"

namespace ddpo {
namespace {

// How often the learner looks whether all actors have heard of the end.
constexpr absl::Duration kLook = absl::Milliseconds(10);
// A learner that starts again asks for its old port, where its clients look for it. Somebody else's
// connection may have it for a moment.
constexpr absl::Duration kPortPatience = absl::Seconds(20);

CheckpointRetention Retention(const config::v1::CheckpointConfig& config) {
  CheckpointRetention retention;
  retention.keep = config.keep();
  if (config.max_age_hours() > 0) retention.max_age = absl::Hours(config.max_age_hours());
  return retention;
}

// What `start` returns, once it can listen; UNAVAILABLE if it never can.
template <typename Start>
auto ListenPatiently(const std::string& address, Start start) -> decltype(start()) {
  RetryOptions retry;
  retry.give_up_after = kPortPatience;
  retry.max_pause = absl::Milliseconds(500);
  decltype(start()) server;
  bool told = false;
  DDPO_RETURN_IF_ERROR(
      CallWithRetry(absl::StrCat("listening on ", address), retry, [&](absl::Time) {
        server = start();
        if (absl::IsUnavailable(server.status()) && !std::exchange(told, true)) {
          LogWarning(server.status().message(), "; trying again for ",
                     absl::FormatDuration(kPortPatience));
        }
        return server.status();
      }));
  return server;
}

}  // namespace

Learner::Learner(const LearnerOptions& options, Collective* collective)
    : options_(options),
      collective_(collective),
      registry_(std::make_shared<prometheus::Registry>()),
      files_(options.run_dir, options.config.training().full_finetuning(), options.file_system),
      checkpoints_(files_.checkpoints_dir(), Retention(options.config.checkpoint()),
                   options.file_system) {}

absl::StatusOr<std::unique_ptr<Learner>> Learner::Start(const LearnerOptions& options,
                                                        PolicyTrainer* trainer,
                                                        Collective* collective) {
  auto learner = std::unique_ptr<Learner>(new Learner(options, collective));
  std::optional<Checkpoint> checkpoint;
  if (learner->leads()) {
    DDPO_ASSIGN_OR_RETURN(checkpoint, learner->ReadCheckpoint());
  }
  DDPO_RETURN_IF_ERROR(learner->MakeParts(trainer));
  DDPO_RETURN_IF_ERROR(learner->Serve());
  DDPO_RETURN_IF_ERROR(learner->MeetRanks());
  DDPO_RETURN_IF_ERROR(learner->loop_->Restore(checkpoint));
  if (options.address_file.empty()) return learner;
  std::string addresses = learner->address() + "\n";
  if (learner->metrics_server_ != nullptr) {
    absl::StrAppend(&addresses, learner->metrics_server_->address(), "\n");
  }
  DDPO_RETURN_IF_ERROR(WriteFileAtomically(options.address_file, addresses));
  return learner;
}

absl::StatusOr<std::optional<Checkpoint>> Learner::ReadCheckpoint() {
  std::vector<std::string> warnings;
  auto checkpoint = checkpoints_.ReadNewest(&warnings);
  for (const std::string& warning : warnings) LogError(warning);
  DDPO_RETURN_IF_ERROR(checkpoint.status());
  if (!checkpoint->has_value()) return checkpoint;
  if ((*checkpoint)->model_digest != options_.model_digest) {
    return absl::FailedPreconditionError(
        absl::StrCat("the run's checkpoint was made with another base model: digest ",
                     (*checkpoint)->model_digest, ", that of ", options_.config.model(), " is ",
                     options_.model_digest));
  }
  DDPO_ASSIGN_OR_RETURN(const config::v1::Config before,
                        ParseConfig((*checkpoint)->config_yaml, "the checkpoint's config.yaml"));
  if (const absl::Status same = CheckSameRun(before, options_.config); !same.ok()) {
    return absl::Status(
        same.code(),
        absl::StrCat("the run's checkpoint was made with another configuration: ", same.message()));
  }
  const std::string change = DescribeRankChange(before, options_.config);
  if (!change.empty()) LogWarning(change);
  LogInfo("going on from the checkpoint after ", (*checkpoint)->epochs_done, " epochs");
  return checkpoint;
}

absl::Status Learner::MakeParts(PolicyTrainer* trainer) {
  const config::v1::Config& config = options_.config;
  DDPO_ASSIGN_OR_RETURN(std::vector<std::string> prompts, LoadPrompts(config.prompts()));
  DDPO_ASSIGN_OR_RETURN(statistics_, CreateSampleWeighting(config.training()));
  metrics_ = std::make_unique<LearnerMetrics>(*registry_);
  metrics_->generation.Set(static_cast<double>(collective_->generation()));
  metrics_->epochs_target.Set(config.run().epochs());
  metrics_->staleness_bound.Set(config.training().max_staleness());
  metrics_->checkpoint_interval_epochs.Set(config.checkpoint().every_epochs());
  std::map<std::string, int64_t> failures;
  if (leads()) {
    metrics_->actors_expected.Set(config.cluster().actors());
    DDPO_ASSIGN_OR_RETURN(failures, files_.Failures());
  }
  for (const auto& [reason, count] : failures) {
    metrics_->run_failures[reason].Increment(static_cast<double>(count));
  }

  CoordinatorOptions coordinator_options;
  coordinator_options.run_id =
      absl::StrCat(config.run().name(), "-", ConfigDigest(config).substr(0, 8));
  coordinator_options.generation = collective_->generation();
  // An actor has certificates of its own.
  config::v1::Config for_actors = config;
  for_actors.clear_security();
  coordinator_options.config = for_actors.SerializeAsString();
  coordinator_options.model_digest = options_.model_digest;
  coordinator_options.lease_duration = absl::Seconds(config.cluster().lease_seconds());
  coordinator_options.max_task_attempts = config.cluster().max_task_attempts();
  // Ranks other than 0 have one that is never served and has nothing to do.
  coordinator_ = std::make_unique<Coordinator>(coordinator_options);
  buffer_ = std::make_unique<TrajectoryBuffer>(config.sampling().num_steps(),
                                               trainer->LatentShape(), collective_->rank());
  // Tasks sample with versions down to max_staleness behind the newest, which is one more.
  policies_ = std::make_unique<PolicyStore>(config.training().max_staleness() + 2);
  planner_ = std::make_unique<TaskPlanner>(config, std::move(prompts));
  monitor_ = std::make_unique<RunMonitor>(coordinator_.get(), buffer_.get(), config.run().epochs(),
                                          failures);
  RunParts parts;
  parts.collective = collective_;
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
  ingest_service_ = std::make_unique<IngestService>(coordinator_.get(), buffer_.get());
  std::vector<grpc::Service*> services = {ingest_service_.get()};
  if (leads()) {
    coordinator_service_ = std::make_unique<CoordinatorService>(coordinator_.get(), monitor_.get());
    policy_service_ = std::make_unique<PolicyService>(coordinator_.get(), policies_.get());
    services.push_back(coordinator_service_.get());
    services.push_back(policy_service_.get());
  }
  RpcServerOptions server_options;
  server_options.listen = options_.listen;
  server_options.allow_plain_text_anywhere = options_.allow_plain_text_anywhere;
  server_options.tls = options_.config.security().tls();
  server_options.health_listen = options_.health_listen;
  DDPO_ASSIGN_OR_RETURN(rpc_, ListenPatiently(options_.listen, [&] {
                          return RpcServer::Start(server_options, services);
                        }));
  if (!options_.metrics_listen.empty()) DDPO_RETURN_IF_ERROR(ServeMetrics());
  LogInfo("serves on ", rpc_->address(), ", rank ", collective_->rank(), " of ",
          collective_->size(), ", generation ", generation());
  HousekeepingParts housekeeping;
  housekeeping.coordinator = coordinator_.get();
  housekeeping.buffer = buffer_.get();
  housekeeping.monitor = monitor_.get();
  housekeeping.metrics = metrics_.get();
  housekeeping.rpc = rpc_.get();
  housekeeping.stall = options_.stall;
  housekeeping_ = std::make_unique<Housekeeping>(housekeeping);
  return absl::OkStatus();
}

absl::Status Learner::MeetRanks() {
  cluster::v1::RankStart mine;
  mine.set_config_digest(ConfigDigest(options_.config));
  mine.set_model_digest(options_.model_digest);
  if (!leads()) {
    mine.set_ingest_address(options_.advertise.empty() ? rpc_->address() : options_.advertise);
    DDPO_ASSIGN_OR_RETURN(const HostPort address, ParseHostPort(mine.ingest_address()));
    if (address.host == "0.0.0.0" || address.host == "::") {
      return absl::InvalidArgumentError(
          absl::StrCat("--advertise: has to say where actors reach rank ", collective_->rank(),
                       ", which listens on ", mine.ingest_address()));
    }
  }
  DDPO_ASSIGN_OR_RETURN(const auto ranks, GatherFromRanks(*collective_, mine));
  std::vector<std::string> addresses, configs, models;
  for (const cluster::v1::RankStart& rank : ranks) {
    addresses.push_back(rank.ingest_address());
    configs.push_back(rank.config_digest());
    models.push_back(rank.model_digest());
  }
  for (const absl::Status& alike :
       {CheckRanksAlike("the configuration", configs), CheckRanksAlike("the base model", models)}) {
    if (!alike.ok()) return absl::FailedPreconditionError(alike.message());
  }
  loop_->SetIngestAddresses(std::move(addresses));
  return absl::OkStatus();
}

absl::Status Learner::ServeMetrics() {
  MetricsServerOptions metrics_options;
  metrics_options.listen = options_.metrics_listen;
  metrics_options.allow_plain_text_anywhere = options_.allow_plain_text_anywhere;
  metrics_options.process = "ddpo-learner";
  DDPO_ASSIGN_OR_RETURN(metrics_server_, ListenPatiently(options_.metrics_listen, [&] {
                          return MetricsServer::Start(metrics_options, registry_);
                        }));
  LogInfo("metrics on ", metrics_server_->address());
  return absl::OkStatus();
}

void Learner::NoteFailure(const absl::Status& status) {
  monitor_->SetError(status.ToString());
  const std::string reason = metrics_->non_finite_refused.Value() > 0 ? "non_finite"
                             : !coordinator_->error().ok()            ? "tasks"
                             : collective_->failed()                  ? "ranks"
                             : absl::IsDataLoss(status)               ? "weights"
                                                                      : "other";
  metrics_->run_failures[reason].Increment();
  if (!leads()) return;
  const absl::Status noted = files_.CountFailure(reason);
  if (!noted.ok()) LogError("the failure is not noted in the run's folder: ", noted.ToString());
}

absl::Status Learner::Run(const std::function<bool()>& stopping) {
  const absl::Status status = loop_->Run(stopping);
  if (!status.ok() && !absl::IsCancelled(status)) {
    NoteFailure(status);
    collective_->Abort(std::string(status.message()));
  }
  if (!collective_->failed()) SayFarewell(status);
  rpc_->Drain(options_.drain);
  if (status.ok() || absl::IsCancelled(status)) {
    const absl::Status left = collective_->Leave();
    if (!left.ok()) LogWarning("the ranks did not end together: ", left.message());
    KillPoint("run.end");
  }
  return status;
}

void Learner::SayFarewell(const absl::Status& status) {
  coordinator_->End(status.ok() ? "the run is complete" : std::string(status.message()));
  // Actors that are between two calls hear of the end when they ask next; those that have a batch
  // in hand may be too late.
  const absl::Time farewell = absl::Now() + options_.farewell;
  while (!coordinator_->AllActorsToldEnd() && absl::Now() < farewell) absl::SleepFor(kLook);
}

}  // namespace ddpo
