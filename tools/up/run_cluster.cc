#include "tools/up/run_cluster.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/base/status_macros.h"
#include "tools/run/metrics_log.h"
#include "tools/up/gpus.h"
#include "tools/up/local_cluster.h"
#include "tools/up/progress.h"

namespace ddpo {
namespace {

// How often processes and progress are looked at.
constexpr absl::Duration kTick = absl::Milliseconds(200);
// For reward servers to load their models, as the manifests' probes give them.
constexpr absl::Duration kLoadPatience = absl::Minutes(20);

Progress CurrentProgress(const RunFolder& run, const config::v1::Config& config,
                         const LocalCluster& cluster) {
  // The display is no reason to end a run: a log that can't be read shows as no progress.
  const std::vector<nlohmann::json> metrics =
      ReadMetricsLog(run.metrics_path()).value_or(std::vector<nlohmann::json>());
  Progress progress =
      ProgressFromMetrics(metrics, config.run().epochs(), config.sampling().samples_per_epoch());
  const std::optional<cluster::v1::GetStatusResponse> status = cluster.Status();
  progress.phase = status ? status->phase() : "starting";
  if (status) {
    progress.phase_done = status->phase_done();
    progress.phase_total = status->phase_total();
  }
  return progress;
}

absl::Status Train(const RunFolder& run, const RunClusterOptions& options, LocalCluster& cluster,
                   ProgressDisplay& display, ShutdownSignal& shutdown) {
  while (!shutdown.WaitFor(kTick)) {
    DDPO_RETURN_IF_ERROR(cluster.Tick());
    display.Show(CurrentProgress(run, options.config, cluster));
    if (cluster.Completed()) return absl::OkStatus();
    if (cluster.StoppedFromOutside()) {
      return absl::CancelledError("the learner was stopped from outside");
    }
  }
  return absl::CancelledError("stopped");
}

// Where the reward servers listen: a learner that has nothing left to do may be done before they
// are there.
absl::StatusOr<std::vector<std::string>> WaitForRewardServers(LocalCluster& cluster,
                                                              ShutdownSignal& shutdown) {
  const absl::Time deadline = absl::Now() + kLoadPatience;
  while (true) {
    std::vector<std::string> addresses = cluster.RewardAddresses();
    if (!addresses.empty()) return addresses;
    if (absl::Now() > deadline) {
      return absl::DeadlineExceededError(absl::StrCat("a reward server did not serve within ",
                                                      absl::FormatDuration(kLoadPatience),
                                                      "; see its log in the run's folder"));
    }
    if (shutdown.WaitFor(kTick)) return absl::CancelledError("stopped");
    DDPO_RETURN_IF_ERROR(cluster.Tick());
  }
}

}  // namespace

absl::Status RunCluster(const RunFolder& run, const RunClusterOptions& options,
                        ShutdownSignal& shutdown) {
  ProgressDisplay display(*options.out, options.columns);
  DDPO_ASSIGN_OR_RETURN(std::string program_dir, ProgramDir());
  DDPO_ASSIGN_OR_RETURN(auto gpus, AssignGpus(options.config, VisibleGpus()));
  LocalCluster cluster({.config = options.config,
                        .run_dir = run.path(),
                        .program_dir = std::move(program_dir),
                        .gpus = std::move(gpus),
                        .note = [&display](const std::string& line) { display.Note(line); }});
  const auto abort = [&shutdown] { return shutdown.count() > 1; };

  absl::Status status = Train(run, options, cluster, display, shutdown);
  display.Finish();
  if (shutdown.requested()) {
    *options.out << "stopping: waiting for the learner, which finishes its update and saves a "
                    "checkpoint (Ctrl-C again ends at once)"
                 << std::endl;
  }
  cluster.StopTraining(/*asked=*/shutdown.requested(), abort);
  if (status.ok() && options.at_end) {
    const auto rewards = WaitForRewardServers(cluster, shutdown);
    status = rewards.ok() ? options.at_end(*rewards) : rewards.status();
  }
  cluster.StopAll(abort);
  return status;
}

}  // namespace ddpo
