// ddpo-learner: owns the policy, hands out rollout tasks, takes trajectories, trains and publishes.
//
// Exit codes: 0 the run is complete, or was asked to stop and is saved (--stopped-exit-code tells
// the two apart); 1 the run failed, or could not be taken up now; 2 the configuration, the model or
// the run's folder cannot be worked with, so that starting again is no use; 3 another rank is gone:
// all ranks are to be started again, and go on from the newest checkpoint.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <memory>
#include <string>

#include "common/base/files.h"
#include "common/base/folder_lock.h"
#include "common/base/logging.h"
#include "common/base/shutdown.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/diffusion/model_index.h"
#include "common/rpc/security_flags.h"
#include "learner/join_ranks.h"
#include "learner/learner.h"
#include "learner/policy_trainer_factory.h"

namespace ddpo {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitBadConfig = 2;
constexpr int kExitRankGone = 3;

// For another learner in the run's folder to end, which is killed already or about to be.
constexpr absl::Duration kFolderPatience = absl::Seconds(10);

struct Flags {
  std::string config;
  LearnerOptions learner;
  RankOptions ranks;
  config::v1::SecurityConfig security;
  double stall_seconds = 3600;
  int stopped_exit_code = 0;
  std::string log_level = "info";
};

void AddFlags(CLI::App* app, Flags* flags) {
  app->add_option("--config", flags->config, "The run's configuration: a file or a preset")
      ->required();
  app->add_option("--run-dir", flags->learner.run_dir, "The run's folder; an existing run goes on")
      ->required();
  app->add_option("--listen", flags->learner.listen, "HOST:PORT for actors");
  app->add_option("--metrics-listen", flags->learner.metrics_listen, "HOST:PORT for Prometheus");
  app->add_option("--rank", flags->ranks.rank, "Which of the cluster.learner_ranks ranks this is")
      ->envname("JOB_COMPLETION_INDEX")
      ->check(CLI::NonNegativeNumber);
  app->add_option(
      "--store", flags->ranks.store,
      "HOST:PORT where the ranks meet, served by rank 0; needed for more than one rank");
  app->add_option("--store-listen", flags->ranks.store_listen,
                  "HOST:PORT that rank 0 serves it on, where that is not --store");
  app->add_option("--ranks-host", flags->ranks.listen_host,
                  "Name or address of this rank for the others, without a port");
  app->add_option("--advertise", flags->learner.advertise,
                  "HOST:PORT where actors reach this rank, where that is not --listen");
  app->add_option("--address-file", flags->learner.address_file,
                  "Gets both addresses, a line each, once the learner serves");
  app->add_flag("--allow-plain-text-anywhere", flags->learner.allow_plain_text_anywhere,
                "Listen without TLS beyond loopback");
  app->add_option("--health-listen", flags->learner.health_listen,
                  "HOST:PORT for health checks in plain text, where --listen speaks TLS");
  AddCertificateFlags(app, &flags->security);
  AddTlsServerFlags(app, &flags->security);
  app->add_option("--stall-seconds", flags->stall_seconds,
                  "Longest time for one step of an epoch, as the update; after it health checks of "
                  "ddpo.learner.progress fail")
      ->check(CLI::PositiveNumber);
  app->add_option("--stopped-exit-code", flags->stopped_exit_code,
                  "Exit code of a run that was asked to stop, for supervisors that take 0 for the "
                  "end of the run")
      ->check(CLI::Range(0, 125));
  app->add_option("--log-level", flags->log_level, "trace, debug, info, warning or error");
}

// A learner that serves, and what it uses; none of it where there is nothing left to do.
struct Started {
  std::unique_ptr<FolderLock> folder;  // rank 0's
  std::unique_ptr<Collective> collective;
  std::unique_ptr<PolicyTrainer> trainer;
  std::unique_ptr<Learner> learner;
};

// `joining` is true while there is nothing yet that a stop would have to finish or save.
absl::Status Start(Flags flags, Started* started, std::atomic<bool>* joining) {
  flags.learner.stall = absl::Seconds(flags.stall_seconds);
  DDPO_ASSIGN_OR_RETURN(flags.learner.config, LoadConfig(flags.config));
  config::v1::Config& config = flags.learner.config;
  config.mutable_security()->MergeFrom(flags.security);
  if (flags.ranks.rank == 0) {
    DDPO_ASSIGN_OR_RETURN(started->folder,
                          FolderLock::Take(flags.learner.run_dir, "learner.lock", kFolderPatience));
  }
  DDPO_ASSIGN_OR_RETURN(const std::string model, FindResource(config.model()));
  DDPO_ASSIGN_OR_RETURN(flags.learner.model_digest, DigestModelFolder(model));
  DDPO_ASSIGN_OR_RETURN(started->collective, JoinRanks(flags.ranks, config, flags.learner.run_dir));
  *joining = false;
  if (started->collective == nullptr) return absl::OkStatus();
  DDPO_ASSIGN_OR_RETURN(started->trainer, CreatePolicyTrainer(config, started->collective.get()));
  DDPO_ASSIGN_OR_RETURN(started->learner, Learner::Start(flags.learner, started->trainer.get(),
                                                         started->collective.get()));
  return absl::OkStatus();
}

int StartExitCode(const absl::Status& status, const Started& started) {
  // No rank has joined a group of one in vain.
  const bool ranks_met = started.collective != nullptr;
  if (ranks_met && started.collective->failed()) return kExitRankGone;
  if (!ranks_met && absl::IsUnavailable(status)) return kExitRankGone;
  // A port that is taken, a folder in use or a disk that is full may be better next time.
  return absl::IsUnavailable(status) || absl::IsAborted(status) ||
                 absl::IsResourceExhausted(status) || absl::IsInternal(status)
             ? kExitFailed
             : kExitBadConfig;
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("The learner of a DDPO cluster.", "ddpo-learner");
  AddFlags(&app, &flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitBadConfig;
  }
  InitLogging("ddpo-learner", flags.log_level);
  std::atomic<bool> joining{true};
  ShutdownSignal shutdown;
  shutdown.OnSignal([&joining, &flags](int count) {
    if (joining) {
      LogInfo("asked to stop before the run went on");
      _exit(flags.stopped_exit_code);
    }
    LogInfo(count == 1 ? "asked to stop: finishing and saving" : "asked to stop at once");
    if (count > 1) _exit(kExitFailed);
  });
  Started started;
  if (const absl::Status status = Start(flags, &started, &joining); !status.ok()) {
    LogError(status.ToString());
    if (started.collective != nullptr) started.collective->Abort(std::string(status.message()));
    return StartExitCode(status, started);
  }
  if (started.learner == nullptr) return 0;
  const absl::Status status = started.learner->Run([&shutdown] { return shutdown.requested(); });
  if (status.ok() || absl::IsCancelled(status)) {
    LogInfo(status.ok() ? "the run is complete" : "stopped; the run is saved");
    return status.ok() ? 0 : flags.stopped_exit_code;
  }
  LogError("the run failed: ", status.ToString());
  return started.collective->failed() ? kExitRankGone : kExitFailed;
}

}  // namespace
}  // namespace ddpo

int main(int argc, char** argv) { return ddpo::Main(argc, argv); }
