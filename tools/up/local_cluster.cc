#include "tools/up/local_cluster.h"

#include <chrono>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/end_times.h"
#include "common/base/free_port.h"
#include "common/base/status_macros.h"
#include "tools/status/cluster_status.h"
#include "tools/up/child_names.h"

namespace ddpo {
namespace {

constexpr char kLearner[] = "learner-0";
// As in deploy/: a learner that stops finishes its update, which may be minutes of backward passes,
// and writes a checkpoint. The others only drain.
constexpr absl::Duration kLearnerPatience = absl::Minutes(5);
constexpr absl::Duration kStopPatience = absl::Seconds(60);
// A rank that fails ends the others at once, but itself says farewell first, drains and takes its
// servers down. Only its exit code says that the group is not to start again.
const absl::Duration kRankPatience = kLearnerFarewell + kLearnerDrain + absl::Seconds(7);
// As in the manifests.
constexpr int kExitStopped = 75;
// Long for a call on one machine, short enough that the display goes on.
constexpr std::chrono::milliseconds kStatusDeadline{500};

// What an actor is told of `security`: it reads no configuration file.
std::vector<std::string> SecurityFlags(const config::v1::SecurityConfig& security) {
  const std::pair<const char*, std::string> flags[] = {
      {"--tls-cert", security.tls().certificate()},
      {"--tls-key", security.tls().private_key()},
      {"--tls-ca", security.tls().server_ca()},
      {"--tls-server-name", security.tls().server_name_override()},
      {"--token-file", security.token_file()}};
  std::vector<std::string> arguments;
  for (const auto& [flag, value] : flags) {
    if (!value.empty()) arguments.insert(arguments.end(), {flag, value});
  }
  return arguments;
}

}  // namespace

absl::StatusOr<std::string> ProgramDir() {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) {
    return absl::InternalError(absl::StrCat("can't read /proc/self/exe: ", error.message()));
  }
  return program.parent_path().string();
}

std::string ScorersFor(const config::v1::Config& config) { return config.reward(); }

LocalCluster::LocalCluster(Options options)
    : options_(std::move(options)),
      supervisor_({.run_dir = options_.run_dir,
                   .restart = {},
                   .group_patience = kRankPatience,
                   // OpenMP reads it before our programs could set it; its idle threads spin.
                   .environment = {absl::StrCat("OMP_NUM_THREADS=",
                                                options_.config.cluster().threads_per_process())},
                   .note = options_.note,
                   .clock = options_.clock}) {
  for (int i = 0; i < options_.config.cluster().reward_servers(); ++i) {
    Add({.name = RewardServerName(i),
         .command =
             [this](const ChildAddresses& last) {
               return std::vector<std::string>{Program("ddpo-reward-server"),
                                               "--run-config",
                                               options_.run_dir + "/config.yaml",
                                               "--scorers",
                                               ScorersFor(options_.config),
                                               "--listen",
                                               Listen(last.service),
                                               "--metrics-listen",
                                               Listen(last.metrics)};
             },
         .restart_when_done = absl::ZeroDuration()});
  }
  for (int rank = 0; rank < options_.config.cluster().learner_ranks(); ++rank) {
    Add({.name = LearnerName(rank),
         .final_exit_codes = {kExitFailed, kExitBadConfig},
         .command = [this, rank](const ChildAddresses& last) { return LearnerCommand(rank, last); },
         .group = options_.config.cluster().learner_ranks() > 1 ? "learner's ranks" : "",
         .stopped_exit_code = kExitStopped});
  }
  for (int i = 0; i < options_.config.cluster().actors(); ++i) {
    const std::string name = ActorName(i);
    Add({.name = name,
         .serves = false,
         .command = [this,
                     name](const ChildAddresses& last) -> std::optional<std::vector<std::string>> {
           const std::optional<ChildAddresses> learner = supervisor_.Addresses(kLearner);
           const std::vector<std::string> rewards = RewardAddresses();
           if (!learner || rewards.empty()) return std::nullopt;
           std::vector<std::string> argv{Program("ddpo-actor"),
                                         "--actor-id",
                                         name,
                                         "--learner",
                                         learner->service,
                                         "--reward",
                                         absl::StrJoin(rewards, ","),
                                         "--metrics-listen",
                                         Listen(last.metrics)};
           const std::vector<std::string> security = SecurityFlags(options_.config.security());
           argv.insert(argv.end(), security.begin(), security.end());
           return argv;
         },
         // By then a learner that has told its actors that the run is over has ended.
         .restart_when_done = kRankPatience});
  }
}

void LocalCluster::Add(ChildSpec spec) {
  const auto gpu = options_.gpus.find(spec.name);
  if (gpu != options_.gpus.end()) {
    spec.environment = {absl::StrCat("CUDA_VISIBLE_DEVICES=", gpu->second)};
  }
  supervisor_.Add(std::move(spec));
}

std::vector<std::string> LocalCluster::LearnerCommand(int rank, const ChildAddresses& last) {
  std::vector<std::string> command{Program("ddpo-learner"),
                                   "--config",
                                   options_.run_dir + "/config.yaml",
                                   "--run-dir",
                                   options_.run_dir,
                                   "--listen",
                                   Listen(last.service),
                                   "--metrics-listen",
                                   Listen(last.metrics),
                                   "--stopped-exit-code",
                                   absl::StrCat(kExitStopped)};
  if (options_.config.cluster().learner_ranks() == 1) return command;
  // Rank 0 is started first. A port that was taken meanwhile makes it end, and the ranks start
  // again with another.
  const std::string& host = options_.config.cluster().listen_host();
  if (rank == 0) store_ = absl::StrCat(host, ":", FreePort(host).value_or(0));
  command.insert(command.end(), {"--rank", absl::StrCat(rank), "--store", store_});
  return command;
}

std::string LocalCluster::Program(const std::string& name) const {
  return options_.program_dir + "/" + name;
}

// The address of the last start, so that clients find the child again, or any free port.
std::string LocalCluster::Listen(const std::string& last) const {
  return last.empty() ? absl::StrCat(options_.config.cluster().listen_host(), ":0") : last;
}

absl::Status LocalCluster::Tick() { return supervisor_.Tick(); }

bool LocalCluster::Completed() const { return supervisor_.Completed(kLearner); }

bool LocalCluster::StoppedFromOutside() const { return supervisor_.Stopped(kLearner); }

std::optional<cluster::v1::GetStatusResponse> LocalCluster::Status() const {
  const std::optional<ChildAddresses> learner = supervisor_.Addresses(kLearner);
  if (!learner) return std::nullopt;
  absl::StatusOr<cluster::v1::GetStatusResponse> status =
      FetchClusterStatus(learner->service, options_.config.security().tls(), kStatusDeadline);
  if (!status.ok()) return std::nullopt;
  return *std::move(status);
}

std::vector<std::string> LocalCluster::RewardAddresses() const {
  std::vector<std::string> addresses;
  for (int i = 0; i < options_.config.cluster().reward_servers(); ++i) {
    const std::optional<ChildAddresses> server = supervisor_.Addresses(RewardServerName(i));
    if (!server) return {};
    addresses.push_back(server->service);
  }
  return addresses;
}

void LocalCluster::StopTraining(bool asked, const std::function<bool()>& abort) {
  supervisor_.Stop("learner-", asked ? absl::InfiniteDuration() : kLearnerPatience, abort);
  supervisor_.Stop("actor-", kStopPatience, abort);
}

void LocalCluster::StopAll(const std::function<bool()>& abort) {
  supervisor_.Stop("", kStopPatience, abort);
}

}  // namespace ddpo
