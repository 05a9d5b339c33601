#include <unistd.h>

#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/base/files.h"
#include "common/base/folder_lock.h"
#include "common/base/shutdown.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "tools/command.h"
#include "tools/report/finish_run.h"
#include "tools/run/run_folder.h"
#include "tools/up/progress.h"
#include "tools/up/run_cluster.h"

namespace ddpo {
namespace {

constexpr char kDefaultPreset[] = "demo_compressibility";
// As a shell reports a program that Ctrl-C ended.
constexpr int kExitStopped = 130;
// For another `ddpo up` in the folder to end, which has just been killed.
constexpr absl::Duration kFolderPatience = absl::Seconds(2);

struct UpFlags {
  std::string config = kDefaultPreset;
  std::vector<std::string> settings;
  std::string run_dir;
  std::string resume;
};

// --resume RUN stands for the run's own configuration and folder.
absl::StatusOr<UpFlags> Resolve(UpFlags flags) {
  if (flags.resume.empty()) return flags;
  const RunFolder run(flags.resume);
  if (!FileSystem::Real()->Exists(run.config_path())) {
    return absl::NotFoundError(
        absl::StrCat("--resume: ", flags.resume, " is no run's folder: it has no config.yaml"));
  }
  flags.config = run.config_path();
  flags.run_dir = run.path();
  return flags;
}

absl::Status Up(const UpFlags& given, ShutdownSignal& shutdown) {
  DDPO_ASSIGN_OR_RETURN(const UpFlags flags, Resolve(given));
  DDPO_ASSIGN_OR_RETURN(config::v1::Config config, LoadConfig(flags.config, flags.settings));
  const RunFolder run(
      flags.run_dir.empty()
          ? absl::StrCat("runs/", config.run().name(), "-",
                         absl::FormatTime("%Y%m%d-%H%M%S", absl::Now(), absl::LocalTimeZone()))
          : flags.run_dir);
  DDPO_ASSIGN_OR_RETURN(const auto folder,
                        FolderLock::Take(run.path(), "up.lock", kFolderPatience));
  DDPO_ASSIGN_OR_RETURN(const std::string change, run.Prepare(config));
  std::cout << "run folder: " << run.path() << std::endl;
  if (!change.empty()) std::cout << change << std::endl;

  const auto at_end = [&](const std::vector<std::string>& reward_addresses) -> absl::Status {
    DDPO_ASSIGN_OR_RETURN(
        ComparisonSummary summary,
        FinishRun(run, {.config = config,
                        .reward_addresses = reward_addresses,
                        .note = [](const std::string& line) { std::cout << line << std::endl; },
                        .cancelled = [&] { return shutdown.requested(); }}));
    std::cout << SummaryText(summary) << "\nreport: " << run.report_path() << std::endl;
    return absl::OkStatus();
  };
  const absl::Status status = RunCluster(run,
                                         {.config = config,
                                          .out = &std::cout,
                                          .columns = TerminalColumns(STDOUT_FILENO),
                                          .at_end = at_end},
                                         shutdown);
  if (absl::IsCancelled(status)) {
    std::cout << "stopped; go on with: ddpo up --resume " << run.path() << std::endl;
  }
  return status;
}

}  // namespace

void AddUpCommand(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<UpFlags>();
  CLI::App* command = app.add_subcommand(
      "up",
      "Run a whole cluster on this machine: learner, actors and reward servers. Ctrl-C saves "
      "and stops; --resume goes on, with --set also with more epochs, or other numbers of "
      "processes.");
  CLI::Option* config =
      command
          ->add_option("--config", flags->config, "A YAML file, or a preset from assets/configs/")
          ->capture_default_str();
  command->add_option("--set", flags->settings,
                      "KEY=VALUE over the config, as in training.learning_rate=1e-3; repeatable");
  CLI::Option* run_dir = command->add_option(
      "--run-dir", flags->run_dir,
      "The run's folder (default runs/NAME-DATE-TIME); goes on where it has one");
  command->add_option("--resume", flags->resume, "Go on with the run in this folder")
      ->excludes(config)
      ->excludes(run_dir);
  command->callback([flags, &exit_code] {
    ShutdownSignal shutdown;
    const absl::Status status = Up(*flags, shutdown);
    exit_code = absl::IsCancelled(status) ? kExitStopped : ExitCode("up", status);
  });
}

}  // namespace ddpo
