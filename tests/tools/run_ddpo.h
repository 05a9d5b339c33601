#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "common/base/files.h"
#include "common/base/subprocess.h"
#include "tests/testing/paths.h"

namespace ddpo::testing {

struct CommandResult {
  int exit_code = -1;
  std::string output;  // standard output and error together
};

// Runs the `ddpo` of this build to its end.
inline CommandResult RunDdpo(const std::vector<std::string>& arguments) {
  const std::string log = ::testing::TempDir() + "/ddpo-" + std::to_string(getpid()) + ".log";
  std::filesystem::remove(log);
  Subprocess::Options options;
  options.argv = {ProgramPath("ddpo")};
  options.argv.insert(options.argv.end(), arguments.begin(), arguments.end());
  options.log_file = log;
  auto process = Subprocess::Start(options);
  if (!process.ok()) return {.exit_code = -1, .output = std::string(process.status().message())};
  const std::optional<ExitStatus> exit = (*process)->Wait(absl::Minutes(4));
  CommandResult result;
  result.exit_code = exit && exit->signal == 0 ? exit->code : -1;
  result.output = ReadFile(log).value_or("");
  std::filesystem::remove(log);
  return result;
}

}  // namespace ddpo::testing
