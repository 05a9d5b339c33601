#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/rpc/security_flags.h"
#include "common/rpc/tls_diagnosis.h"
#include "tools/command.h"
#include "tools/run/run_folder.h"
#include "tools/status/cluster_status.h"
#include "tools/status/status_output.h"

namespace ddpo {
namespace {

constexpr std::chrono::seconds kDeadline{5};

struct StatusFlags {
  std::string run;
  std::string learner;
  bool json = false;
  config::v1::SecurityConfig security;
};

// The learner's address in a run's pids.json.
absl::StatusOr<std::string> LearnerOfRun(const RunFolder& run) {
  DDPO_ASSIGN_OR_RETURN(std::string text, ReadFile(run.processes_path()));
  const nlohmann::json table = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (table.is_object() && table.contains("processes")) {
    for (const nlohmann::json& process : table["processes"]) {
      if (process.value("name", "") == "learner-0" && process.value("address", "") != "") {
        return process["address"].get<std::string>();
      }
    }
  }
  return absl::NotFoundError(absl::StrCat(run.processes_path(), " names no running learner"));
}

absl::Status ShowStatus(const StatusFlags& flags) {
  std::string address = flags.learner;
  config::v1::TlsConfig tls;
  if (address.empty()) {
    const RunFolder run(flags.run);
    DDPO_ASSIGN_OR_RETURN(address, LearnerOfRun(run));
    DDPO_ASSIGN_OR_RETURN(const config::v1::Config config, LoadConfig(run.config_path()));
    tls = config.security().tls();
  }
  tls.MergeFrom(flags.security.tls());
  const auto answer = FetchClusterStatus(address, tls, kDeadline);
  if (!answer.ok()) return ExplainConnection(answer.status(), address, tls);
  const cluster::v1::GetStatusResponse& status = *answer;
  if (flags.json) {
    std::cout << ClusterStatusJson(status).dump(2) << "\n";
  } else {
    std::cout << ClusterStatusText(status);
  }
  return absl::OkStatus();
}

}  // namespace

void AddStatusCommand(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<StatusFlags>();
  CLI::App* command = app.add_subcommand("status", "Show what a running cluster is doing");
  CLI::Option* run = command->add_option("run", flags->run, "The run's folder");
  CLI::Option* learner =
      command->add_option("--learner", flags->learner, "The learner's address instead of a folder");
  run->excludes(learner);
  command->add_flag("--json", flags->json, "Print JSON");
  AddCertificateFlags(command, &flags->security);
  AddTlsClientFlags(command, &flags->security);
  command->callback([flags, &exit_code] {
    if (flags->run.empty() && flags->learner.empty()) {
      throw CLI::RequiredError("RUN or --learner ADDR");
    }
    exit_code = ExitCode("status", ShowStatus(*flags));
  });
}

}  // namespace ddpo
