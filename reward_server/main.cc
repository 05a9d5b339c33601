// ddpo-reward-server: scores images over gRPC (proto/ddpo/reward/v1).

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_split.h"
#include "common/base/files.h"
#include "common/base/logging.h"
#include "common/base/shutdown.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/config/yaml_reader.h"
#include "common/nn/compute_threads.h"
#include "common/rpc/security_flags.h"
#include "ddpo/config/v1/reward_server.pb.h"
#include "reward_server/scorers/builtin.h"
#include "reward_server/server.h"

namespace ddpo {
namespace {

struct Flags {
  std::string config_file;
  std::string run_config;
  std::vector<std::string> overrides;
  std::string listen;
  std::string scorers;
  std::string metrics_listen;
  std::string address_file;
  std::string jobs_database;
  std::string health_listen;
  bool allow_plain_text_anywhere = false;
  config::v1::SecurityConfig security;
  std::string log_level = "info";
};

void AddFlags(CLI::App* app, Flags* flags) {
  app->add_option("--config", flags->config_file,
                  "YAML file; its keys are those of proto/ddpo/config/v1/reward_server.proto");
  app->add_option(
      "--run-config", flags->run_config,
      "a run's configuration: takes its reward_server, scoring and security "
      "sections, cluster.threads_per_process, and its reward as the scorer where none is named");
  app->add_option("--set", flags->overrides, "KEY=VALUE, as in limits.max_batch_size=16");
  app->add_option("--listen", flags->listen, "HOST:PORT of the gRPC server; port 0 takes any");
  app->add_option("--scorers", flags->scorers, "names of the scorers, separated by commas");
  app->add_option("--metrics-listen", flags->metrics_listen, "HOST:PORT of the metrics");
  app->add_option("--address-file", flags->address_file,
                  "gets the addresses of the gRPC server and of the metrics, a line each");
  app->add_option("--jobs-database", flags->jobs_database,
                  "SQLite file of the background jobs; without it the server takes none");
  app->add_flag("--allow-plain-text-anywhere", flags->allow_plain_text_anywhere,
                "speak plain text on other than loopback addresses");
  app->add_option("--health-listen", flags->health_listen,
                  "HOST:PORT for health checks in plain text, where --listen speaks TLS");
  AddCertificateFlags(app, &flags->security);
  AddTlsServerFlags(app, &flags->security);
  app->add_option("--tokens-file", *flags->security.mutable_tokens_file(),
                  "bearer tokens that callers have to show one of (security.tokens_file)");
  app->add_option("--log-level", flags->log_level, "trace, debug, info, warning or error");
}

// The file, then --run-config, then --set, then the flags.
absl::StatusOr<config::v1::RewardServerProgram> ReadConfig(const Flags& flags) {
  config::v1::RewardServerProgram config;
  std::string yaml = "{}";
  if (!flags.config_file.empty()) {
    DDPO_ASSIGN_OR_RETURN(yaml, ReadFile(flags.config_file));
  }
  const std::string source = flags.config_file.empty() ? "flags" : flags.config_file;
  DDPO_RETURN_IF_ERROR(ParseYamlMessage(yaml, source, flags.overrides, &config));
  if (!flags.run_config.empty()) {
    DDPO_ASSIGN_OR_RETURN(const config::v1::Config run, LoadConfig(flags.run_config));
    *config.mutable_limits() = run.reward_server();
    *config.mutable_scoring() = run.scoring();
    config.set_compute_threads(run.cluster().threads_per_process());
    config.mutable_security()->MergeFrom(run.security());
    if (config.scorers().empty()) config.add_scorers(run.reward());
  }
  if (!flags.listen.empty()) config.set_listen(flags.listen);
  if (!flags.metrics_listen.empty()) config.set_metrics_listen(flags.metrics_listen);
  if (!flags.address_file.empty()) config.set_address_file(flags.address_file);
  if (!flags.jobs_database.empty()) config.mutable_jobs()->set_database(flags.jobs_database);
  if (!flags.health_listen.empty()) config.set_health_listen(flags.health_listen);
  config.mutable_security()->MergeFrom(flags.security);
  if (flags.allow_plain_text_anywhere) config.set_allow_plain_text_anywhere(true);
  if (!flags.scorers.empty()) {
    config.clear_scorers();
    for (const absl::string_view name : absl::StrSplit(flags.scorers, ',', absl::SkipEmpty())) {
      config.add_scorers(std::string(name));
    }
  }
  return config;
}

absl::Status Serve(const config::v1::RewardServerProgram& config, ShutdownSignal* signal) {
  if (config.compute_threads() > 0) {
    SetComputeThreads(config.compute_threads());
    LogInfo("each scorer computes with ", config.compute_threads(), " threads");
  }
  DDPO_ASSIGN_OR_RETURN(const ScorerRegistry registry, BuiltinScorers(config.scoring()));
  DDPO_ASSIGN_OR_RETURN(const auto server, RewardServer::Start(config, registry));
  for (const std::string& name : config.scorers()) LogInfo("serving ", name);
  LogInfo("listening on ", server->address());
  while (!signal->WaitFor(absl::Hours(1))) {
  }
  LogInfo("draining, at most ", config.drain_seconds(), " s");
  signal->OnSignal([&server](int count) {
    if (count > 1) server->Abort();
  });
  server->Drain(absl::Seconds(config.drain_seconds()));
  signal->OnSignal([](int) {});
  LogInfo("stopped");
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  KeepFreedImageBuffers();
  CLI::App app("Scores images over gRPC: ddpo.reward.v1");
  Flags flags;
  AddFlags(&app, &flags);
  CLI11_PARSE(app, argc, argv);
  ShutdownSignal signal;
  InitLogging("ddpo-reward-server", flags.log_level);
  const auto config = ReadConfig(flags);
  const absl::Status status = config.ok() ? Serve(*config, &signal) : config.status();
  if (status.ok()) return 0;
  LogError(status.message());
  return absl::IsInvalidArgument(status) || absl::IsNotFound(status) ? 2 : 1;
}

}  // namespace
}  // namespace ddpo

int main(int argc, char** argv) { return ddpo::Main(argc, argv); }
