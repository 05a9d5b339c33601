#pragma once

#include <CLI/CLI.hpp>
#include <memory>

#include "absl/status/status.h"

namespace ddpo {

// Exit code of a command that could not do its job.
inline constexpr int kCommandFailed = 1;

// `ddpo COMMAND: message` on standard error.
void PrintError(const char* command, const absl::Status& status);

// Prints the error, if there is one, and turns the status into an exit code.
int ExitCode(const char* command, const absl::Status& status);

// Each adds one subcommand; running it leaves its exit code in `exit_code`.
void AddUpCommand(CLI::App& app, int& exit_code);
void AddReportCommand(CLI::App& app, int& exit_code);
void AddStatusCommand(CLI::App& app, int& exit_code);
void AddSampleCommand(CLI::App& app, int& exit_code);
void AddExportCommand(CLI::App& app, int& exit_code);
void AddBenchCommand(CLI::App& app, int& exit_code);
void AddParityCommand(CLI::App& app, int& exit_code);
void AddRewardCommand(CLI::App& app, int& exit_code);

}  // namespace ddpo
