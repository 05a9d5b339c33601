// ddpo-actor: leases rollout tasks from a learner, denoises, gets rewards, delivers trajectories.
//
// Exit codes: 0 the run is over, or the actor was asked to stop; 1 the learner was unreachable for
// too long, the sampler hung, or something else that a new start may cure; 2 flags, model or
// configuration cannot be worked with, so that starting again is no use.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "actor/learner_client.h"
#include "actor/policy_replica.h"
#include "actor/reward_client.h"
#include "actor/rollout_loop.h"
#include "actor/sampler_factory.h"
#include "common/base/files.h"
#include "common/base/logging.h"
#include "common/base/shutdown.h"
#include "common/base/status_macros.h"
#include "common/diffusion/model_index.h"
#include "common/metrics/actor_metrics.h"
#include "common/metrics/metrics_server.h"
#include "common/rpc/retry.h"
#include "common/rpc/security_flags.h"
#include "common/rpc/server.h"
#include "common/rpc/tls_diagnosis.h"
#include "ddpo/config/v1/security.pb.h"

namespace ddpo {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitBadConfig = 2;

struct Flags {
  std::string learner;
  std::string reward;
  std::string actor_id;
  std::string model;
  std::string listen = "127.0.0.1:0";
  std::string metrics_listen = "127.0.0.1:0";
  std::string address_file;
  bool allow_plain_text_anywhere = false;
  config::v1::SecurityConfig security;
  double give_up_seconds = 600;
  std::string log_level = "info";
};

void AddFlags(CLI::App* app, Flags* flags) {
  app->add_option("--learner", flags->learner, "HOST:PORT of the learner's coordinator")
      ->required();
  app->add_option("--reward", flags->reward, "HOST:PORT of the reward servers, comma-separated")
      ->required();
  app->add_option("--actor-id", flags->actor_id,
                  "A name that stays, as in actor-0; one process each")
      ->required();
  app->add_option("--model", flags->model,
                  "The base model's folder; without it, where the run's configuration says");
  app->add_option("--listen", flags->listen, "HOST:PORT for health checks and reflection");
  app->add_option("--metrics-listen", flags->metrics_listen, "HOST:PORT for Prometheus");
  app->add_option("--address-file", flags->address_file,
                  "Gets the addresses of metrics and of health checks, a line each");
  app->add_flag("--allow-plain-text-anywhere", flags->allow_plain_text_anywhere,
                "Listen beyond loopback, for health checks and metrics in plain text");
  AddCertificateFlags(app, &flags->security);
  AddTlsClientFlags(app, &flags->security);
  AddTokenFlag(app, &flags->security);
  app->add_option("--give-up-seconds", flags->give_up_seconds,
                  "The actor fails once the learner has been unreachable for so long")
      ->check(CLI::PositiveNumber);
  app->add_option("--log-level", flags->log_level, "trace, debug, info, warning or error");
}

// What an actor needs to work, once the learner has answered.
struct Joined {
  config::v1::Config config;
  std::string config_bytes;
  std::string model_dir;
  std::string model_digest;
};

absl::Status RegisterPatiently(LearnerClient* learner, const Flags& flags,
                               const std::string& digest, const ShutdownSignal& shutdown,
                               cluster::v1::RegisterResponse* response) {
  RetryOptions retry;
  retry.give_up_after = absl::Seconds(flags.give_up_seconds);
  retry.cancelled = [&shutdown] { return shutdown.requested(); };
  // The error of the end may come much later.
  bool told = false;
  return CallWithRetry(absl::StrCat("registering at ", flags.learner), retry, [&](absl::Time) {
    auto answer = learner->Register(digest);
    if (answer.ok()) {
      *response = *std::move(answer);
    } else if (!told) {
      told = true;
      LogWarning("registering at ", flags.learner, ": ",
                 ExplainConnection(answer.status(), flags.learner, flags.security.tls()).message());
    }
    return answer.status();
  });
}

// Asks for the configuration, then registers with the digest of the model that it names.
absl::StatusOr<Joined> Join(LearnerClient* learner, const Flags& flags,
                            const ShutdownSignal& shutdown) {
  cluster::v1::RegisterResponse response;
  DDPO_RETURN_IF_ERROR(RegisterPatiently(learner, flags, "", shutdown, &response));
  Joined joined;
  if (!joined.config.ParseFromString(response.config())) {
    return absl::InvalidArgumentError("the learner sent a configuration that cannot be read");
  }
  joined.config_bytes = response.config();
  DDPO_ASSIGN_OR_RETURN(joined.model_dir,
                        FindResource(flags.model.empty() ? joined.config.model() : flags.model));
  DDPO_ASSIGN_OR_RETURN(joined.model_digest, DigestModelFolder(joined.model_dir));
  DDPO_RETURN_IF_ERROR(RegisterPatiently(learner, flags, joined.model_digest, shutdown, &response));
  LogInfo("registered with run ", response.run_id(), ", generation ", response.generation(),
          ", policy version ", response.policy_version());
  return joined;
}

// Metrics and health, from before the learner has answered.
struct Servers {
  std::unique_ptr<MetricsServer> metrics;
  std::unique_ptr<RpcServer> health;
};

absl::StatusOr<Servers> StartServers(const Flags& flags,
                                     std::shared_ptr<prometheus::Registry> registry) {
  Servers servers;
  MetricsServerOptions metrics_options;
  metrics_options.listen = flags.metrics_listen;
  metrics_options.allow_plain_text_anywhere = flags.allow_plain_text_anywhere;
  metrics_options.process = "ddpo-actor";
  DDPO_ASSIGN_OR_RETURN(servers.metrics,
                        MetricsServer::Start(metrics_options, std::move(registry)));
  RpcServerOptions health_options;
  health_options.listen = flags.listen;
  health_options.allow_plain_text_anywhere = flags.allow_plain_text_anywhere;
  DDPO_ASSIGN_OR_RETURN(servers.health, RpcServer::Start(health_options, {}));
  if (!flags.address_file.empty()) {
    DDPO_RETURN_IF_ERROR(WriteFileAtomically(
        flags.address_file,
        absl::StrCat(servers.metrics->address(), "\n", servers.health->address(), "\n")));
  }
  LogInfo("metrics on ", servers.metrics->address(), ", health on ", servers.health->address());
  return servers;
}

absl::StatusOr<std::unique_ptr<RewardClient>> CreateRewards(const Flags& flags,
                                                            const config::v1::Config& config) {
  RewardClientOptions options;
  options.scorer = config.reward();
  options.security = flags.security;
  return RewardClient::Create(absl::StrSplit(flags.reward, ',', absl::SkipWhitespace()), options);
}

int ExitCode(const absl::Status& status) {
  LogError(status.ToString());
  return IsRetryable(status) || absl::IsInternal(status) ? kExitFailed : kExitBadConfig;
}

int Serve(const Flags& flags, ShutdownSignal* shutdown) {
  LearnerClientOptions client_options;
  client_options.address = flags.learner;
  client_options.actor_id = flags.actor_id;
  client_options.tls = flags.security.tls();
  std::random_device random;
  client_options.incarnation = (static_cast<uint64_t>(random()) << 32) | random();
  const auto learner = LearnerClient::Create(client_options);
  if (!learner.ok()) return ExitCode(learner.status());

  auto registry = std::make_shared<prometheus::Registry>();
  ActorMetrics metrics(*registry);
  auto servers = StartServers(flags, registry);
  if (!servers.ok()) return ExitCode(servers.status());

  const auto joined = Join(learner->get(), flags, *shutdown);
  if (shutdown->requested()) return 0;
  if (!joined.ok()) return ExitCode(joined.status());
  const auto rewards = CreateRewards(flags, joined->config);
  if (!rewards.ok()) return ExitCode(rewards.status());
  const auto sampler = CreateSampler(joined->config, joined->model_dir);
  if (!sampler.ok()) return ExitCode(sampler.status());

  PolicyReplicaOptions replica_options;
  replica_options.keep = static_cast<size_t>(joined->config.training().max_staleness()) + 2;
  PolicyReplica policies(learner->get(), &metrics, replica_options);
  policies.Reset();
  RolloutLoopOptions loop_options;
  loop_options.actor_id = flags.actor_id;
  loop_options.model_digest = joined->model_digest;
  loop_options.config = joined->config_bytes;
  loop_options.give_up_after = absl::Seconds(flags.give_up_seconds);
  loop_options.stall_limit = absl::Seconds(joined->config.cluster().actor_stall_seconds());
  RolloutParts parts;
  parts.learner = learner->get();
  parts.policies = &policies;
  parts.sampler = sampler->get();
  parts.score = [&](absl::Span<const Image> images, absl::Span<const std::string> prompts,
                    const std::function<bool()>& cancelled) {
    return (*rewards)->Score(images, prompts, cancelled);
  };
  parts.metrics = &metrics;
  // Nothing is cleaned up: that would wait for the thread that hangs.
  parts.on_stall = [](const std::string& task_id) {
    LogError("ending without task ", task_id, ", so that another actor gets it");
    std::_Exit(kExitFailed);
  };
  RolloutLoop loop(loop_options, parts);
  shutdown->OnSignal([&loop, &servers](int count) {
    LogInfo(count == 1 ? "asked to stop: finishing what is in hand" : "asked to stop at once");
    servers->health->SetNotServing();
    count == 1 ? loop.Stop() : loop.Abort();
  });
  const absl::Status status = loop.Run();
  shutdown->OnSignal([](int) {});
  learner->get()->Abort();  // ends the subscription
  if (status.ok()) {
    LogInfo("stopped");
    return 0;
  }
  LogError("failed: ", status.ToString());
  // A learner with another configuration needs a new start of the actor; another model, a person.
  return absl::IsFailedPrecondition(status) ? kExitBadConfig : kExitFailed;
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("An actor of a DDPO cluster.", "ddpo-actor");
  AddFlags(&app, &flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitBadConfig;
  }
  InitLogging("ddpo-actor", flags.log_level);
  ShutdownSignal shutdown;
  return Serve(flags, &shutdown);
}

}  // namespace
}  // namespace ddpo

int main(int argc, char** argv) { return ddpo::Main(argc, argv); }
