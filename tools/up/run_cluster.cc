#include "tools/up/run_cluster.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "tools/run/metrics_log.h"
#include "tools/up/gpus.h"
#include "tools/up/local_cluster.h"
#include "tools/up/progress.h"

namespace ddpo {
namespace {

// How often processes and progress are looked at.
constexpr absl::Duration kTick = absl::Milliseconds(200);

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
    if (!cluster.Completed()) continue;
    // A learner that somebody else stopped has saved and ended well too.
    if (FileSystem::Real()->Exists(run.final_lora())) return absl::OkStatus();
    return absl::CancelledError("the learner was stopped from outside");
  }
  return absl::CancelledError("stopped");
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
  if (absl::IsCancelled(status)) {
    *options.out << "stopping: the learner saves a checkpoint (Ctrl-C again ends at once)"
                 << std::endl;
  }
  cluster.StopTraining(abort);
  if (status.ok() && options.at_end) status = options.at_end(cluster.RewardAddresses());
  cluster.StopAll(abort);
  return status;
}

}  // namespace ddpo
