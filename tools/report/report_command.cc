#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/shutdown.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "tools/command.h"
#include "tools/report/finish_run.h"
#include "tools/run/run_folder.h"
#include "tools/up/reward_child.h"

namespace ddpo {
namespace {

struct ReportFlags {
  std::string run;
  std::vector<std::string> rewards;
};

absl::Status Report(const ReportFlags& flags, ShutdownSignal& shutdown) {
  const RunFolder run(flags.run);
  if (!FileSystem::Real()->Exists(run.config_path())) {
    return absl::NotFoundError(
        absl::StrCat(flags.run, " is no run's folder: it has no config.yaml"));
  }
  DDPO_ASSIGN_OR_RETURN(config::v1::Config config, LoadConfig(run.config_path()));
  std::vector<std::string> addresses = flags.rewards;
  std::unique_ptr<RewardChild> child;
  const auto cancelled = [&] { return shutdown.requested(); };
  if (addresses.empty()) {
    DDPO_ASSIGN_OR_RETURN(child, RewardChild::Start(config, run, cancelled));
    addresses = {child->address()};
  }
  DDPO_ASSIGN_OR_RETURN(
      ComparisonSummary summary,
      FinishRun(run, {.config = config,
                      .reward_addresses = addresses,
                      .note = [](const std::string& line) { std::cout << line << std::endl; },
                      .cancelled = cancelled}));
  std::cout << SummaryText(summary) << "\nreport: " << run.report_path() << std::endl;
  return absl::OkStatus();
}

}  // namespace

void AddReportCommand(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<ReportFlags>();
  CLI::App* command = app.add_subcommand(
      "report", "Compare a run with its base model again and rewrite its report.html");
  command->add_option("run", flags->run, "The run's folder")->required();
  command->add_option("--reward", flags->rewards,
                      "Address of a reward server; without one, `ddpo` starts its own");
  command->callback([flags, &exit_code] {
    ShutdownSignal shutdown;
    exit_code = ExitCode("report", Report(*flags, shutdown));
  });
}

}  // namespace ddpo
