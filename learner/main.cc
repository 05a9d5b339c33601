// ddpo-learner: owns the policy, hands out rollout tasks, takes trajectories, trains and publishes.
//
// Exit codes: 0 the run is complete, or was asked to stop and is saved; 1 the run failed; 2 the
// configuration or the run's folder cannot be worked with, so that starting again is no use.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/logging.h"
#include "common/base/shutdown.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/config/prompts.h"
#include "common/diffusion/model_index.h"
#include "common/metrics/learner_metrics.h"
#include "common/metrics/metrics_server.h"
#include "common/rpc/server.h"
#include "learner/checkpoint.h"
#include "learner/coordinator.h"
#include "learner/coordinator_service.h"
#include "learner/ingest_service.h"
#include "learner/policy_service.h"
#include "learner/policy_trainer_factory.h"
#include "learner/run_loop.h"

namespace ddpo {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitBadConfig = 2;

// Longest time that the learner waits at the end for actors to hear of it.
constexpr absl::Duration kFarewell = absl::Seconds(3);
constexpr absl::Duration kDrain = absl::Seconds(5);
constexpr absl::Duration kTick = absl::Milliseconds(50);

struct Flags {
  std::string config;
  std::string run_dir;
  std::string listen = "127.0.0.1:0";
  std::string metrics_listen = "127.0.0.1:0";
  std::string address_file;
  bool allow_plain_text_anywhere = false;
  std::string log_level = "info";
};

// Ends leases that ran out and brings the metrics of waiting parts up to date, until it goes.
class Ticker {
 public:
  Ticker(Coordinator* coordinator, const TrajectoryBuffer* buffer, LearnerMetrics* metrics)
      : thread_([=, this] {
          while (!ending_) {
            coordinator->Tick();
            UpdateMetrics(*coordinator, buffer->ledger(), metrics);
            absl::SleepFor(kTick);
          }
        }) {}
  ~Ticker() {
    ending_ = true;
    thread_.join();
  }

 private:
  void UpdateMetrics(const Coordinator& coordinator, const cluster::v1::Ledger& ledger,
                     LearnerMetrics* metrics) {
    const auto raise = [](prometheus::Counter& counter, double to) {
      if (to > counter.Value()) counter.Increment(to - counter.Value());
    };
    raise(metrics->samples_received, static_cast<double>(ledger.received()));
    metrics->samples_buffered.Set(static_cast<double>(ledger.buffered()));
    for (const auto& [reason, count] : ledger.dropped()) {
      raise(metrics->samples_dropped[reason], static_cast<double>(count));
    }
    metrics->leases_outstanding.Set(static_cast<double>(coordinator.leases()));
    raise(metrics->leases_expired, static_cast<double>(coordinator.expired_leases()));
    raise(metrics->tasks_failed, static_cast<double>(coordinator.failed_tasks()));
    std::vector<int64_t> versions;
    for (const auto& actor : coordinator.ActorStatuses()) {
      versions.push_back(actor.policy_version());
    }
    metrics->SetActors(versions, coordinator.policy_version());
  }

  std::atomic<bool> ending_{false};
  std::thread thread_;  // last, so that it starts when the rest is there
};

// What a start of the learner is made from, once the configuration is read.
struct Prepared {
  config::v1::Config config;
  std::vector<std::string> prompts;
  std::string model_digest;
  std::optional<Checkpoint> checkpoint;
  uint64_t generation = 0;
};

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
  *allowed.mutable_evaluation() = config.evaluation();
  *allowed.mutable_reward_server() = config.reward_server();
  *allowed.mutable_checkpoint() = config.checkpoint();
  const auto differences = ConfigDifferences(allowed, config);
  if (differences.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the run's checkpoint was made with another configuration: ",
                   absl::StrJoin(differences, "; ")));
}

absl::StatusOr<Prepared> Prepare(const Flags& flags, RunFiles* files) {
  Prepared prepared;
  DDPO_ASSIGN_OR_RETURN(prepared.config, LoadConfig(flags.config));
  if (prepared.config.cluster().learner_ranks() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("cluster.learner_ranks: ", prepared.config.cluster().learner_ranks(),
                     ": this learner runs as one rank"));
  }
  DDPO_ASSIGN_OR_RETURN(prepared.prompts, LoadPrompts(prepared.config.prompts()));
  DDPO_ASSIGN_OR_RETURN(const std::string model, FindResource(prepared.config.model()));
  DDPO_ASSIGN_OR_RETURN(prepared.model_digest, DigestModelFolder(model));
  DDPO_RETURN_IF_ERROR(files->Prepare());
  CheckpointStore checkpoints(files->checkpoints_dir(), prepared.config.checkpoint().keep());
  std::vector<std::string> warnings;
  auto checkpoint = checkpoints.ReadNewest(&warnings);
  for (const std::string& warning : warnings) LogError(warning);
  if (!checkpoint.ok()) return checkpoint.status();
  prepared.checkpoint = *std::move(checkpoint);
  if (prepared.checkpoint.has_value()) {
    DDPO_RETURN_IF_ERROR(
        CheckSameRun(*prepared.checkpoint, prepared.config, prepared.model_digest));
    LogInfo("going on from the checkpoint of epoch ", prepared.checkpoint->epochs_done);
  }
  DDPO_ASSIGN_OR_RETURN(prepared.generation, files->NextGeneration());
  return prepared;
}

absl::Status Serve(const Flags& flags, const Prepared& prepared, PolicyTrainer* trainer,
                   RunFiles* files, ShutdownSignal* shutdown) {
  const config::v1::Config& config = prepared.config;
  auto registry = std::make_shared<prometheus::Registry>();
  LearnerMetrics metrics(*registry);
  metrics.staleness_bound.Set(config.training().max_staleness());

  CoordinatorOptions coordinator_options;
  coordinator_options.run_id =
      absl::StrCat(config.run().name(), "-", ConfigDigest(config).substr(0, 8));
  coordinator_options.generation = prepared.generation;
  coordinator_options.config = config.SerializeAsString();
  coordinator_options.model_digest = prepared.model_digest;
  coordinator_options.lease_duration = absl::Seconds(config.cluster().lease_seconds());
  coordinator_options.max_task_attempts = config.cluster().max_task_attempts();
  Coordinator coordinator(coordinator_options);
  TrajectoryBuffer buffer(config.sampling().num_steps(), /*rank=*/0);
  PolicyStore policies(config.training().max_staleness() + 2);
  DDPO_ASSIGN_OR_RETURN(
      PromptStatistics statistics,
      PromptStatistics::Create({.buffer_size = config.training().stat_buffer_size(),
                                .min_count = config.training().stat_min_count(),
                                .clip = config.training().adv_clip()}));
  TaskPlanner planner(config, prepared.prompts);
  RunMonitor monitor(&coordinator, &buffer, config.run().epochs());
  CheckpointStore checkpoints(files->checkpoints_dir(), config.checkpoint().keep());
  RunLoop loop(config, {.planner = &planner,
                        .coordinator = &coordinator,
                        .buffer = &buffer,
                        .policies = &policies,
                        .trainer = trainer,
                        .statistics = &statistics,
                        .monitor = &monitor,
                        .files = files,
                        .checkpoints = &checkpoints,
                        .metrics = &metrics});
  if (prepared.checkpoint.has_value()) DDPO_RETURN_IF_ERROR(loop.Restore(*prepared.checkpoint));

  CoordinatorService coordinator_service(&coordinator, &monitor);
  IngestService ingest_service(&coordinator, &buffer);
  PolicyService policy_service(&coordinator, &policies);
  RpcServerOptions server_options;
  server_options.listen = flags.listen;
  server_options.allow_plain_text_anywhere = flags.allow_plain_text_anywhere;
  DDPO_ASSIGN_OR_RETURN(
      const auto server,
      RpcServer::Start(server_options, {&coordinator_service, &ingest_service, &policy_service}));
  MetricsServerOptions metrics_options;
  metrics_options.listen = flags.metrics_listen;
  metrics_options.allow_plain_text_anywhere = flags.allow_plain_text_anywhere;
  metrics_options.process = "ddpo-learner";
  DDPO_ASSIGN_OR_RETURN(const auto metrics_server, MetricsServer::Start(metrics_options, registry));
  LogInfo("serves on ", server->address(), ", metrics on ", metrics_server->address(),
          ", generation ", prepared.generation);
  if (!flags.address_file.empty()) {
    DDPO_RETURN_IF_ERROR(WriteFileAtomically(
        flags.address_file,
        absl::StrCat(server->address(), "\n", metrics_server->address(), "\n")));
  }
  const Ticker ticker(&coordinator, &buffer, &metrics);
  const absl::Status status = loop.Run([shutdown] { return shutdown->requested(); });
  if (!status.ok() && !absl::IsCancelled(status)) monitor.SetError(status.ToString());
  coordinator.End(status.ok() ? "the run is complete" : std::string(status.message()));
  // Actors that are between two calls hear of the end when they ask next; those that have a batch
  // in hand may be too late.
  const absl::Time farewell = absl::Now() + kFarewell;
  while (!coordinator.AllActorsToldEnd() && absl::Now() < farewell) absl::SleepFor(kTick);
  server->Drain(kDrain);
  return status;
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("The learner of a DDPO cluster.", "ddpo-learner");
  app.add_option("--config", flags.config, "The run's configuration: a file or a preset")
      ->required();
  app.add_option("--run-dir", flags.run_dir, "The run's folder; an existing run goes on")
      ->required();
  app.add_option("--listen", flags.listen, "HOST:PORT for actors");
  app.add_option("--metrics-listen", flags.metrics_listen, "HOST:PORT for Prometheus");
  app.add_option("--address-file", flags.address_file,
                 "Gets both addresses, a line each, once the learner serves");
  app.add_flag("--allow-plain-text-anywhere", flags.allow_plain_text_anywhere,
               "Listen without TLS beyond loopback");
  app.add_option("--log-level", flags.log_level, "trace, debug, info, warning or error");
  CLI11_PARSE(app, argc, argv);

  InitLogging("ddpo-learner", flags.log_level);
  ShutdownSignal shutdown;
  shutdown.OnSignal([](int count) {
    LogInfo(count == 1 ? "asked to stop: finishing and saving" : "asked to stop at once");
    if (count > 1) _exit(128);
  });
  RunFiles files(flags.run_dir);
  const auto prepared = Prepare(flags, &files);
  if (!prepared.ok()) {
    LogError(prepared.status().ToString());
    return kExitBadConfig;
  }
  auto trainer = CreatePolicyTrainer(prepared->config);
  if (!trainer.ok()) {
    LogError(trainer.status().ToString());
    return kExitBadConfig;
  }
  const absl::Status status = Serve(flags, *prepared, trainer->get(), &files, &shutdown);
  if (status.ok() || absl::IsCancelled(status)) {
    LogInfo(status.ok() ? "the run is complete" : "stopped; the run is saved");
    return 0;
  }
  LogError("the run failed: ", status.ToString());
  return kExitFailed;
}

}  // namespace
}  // namespace ddpo

int main(int argc, char** argv) { return ddpo::Main(argc, argv); }
