#include <CLI/CLI.hpp>

#include "tools/command.h"

int main(int argc, char** argv) {
  CLI::App app{"Fine-tunes text-to-image diffusion models with reinforcement learning (DDPO)"};
  app.require_subcommand(1);
  int exit_code = 0;
  ddpo::AddUpCommand(app, exit_code);
  ddpo::AddReportCommand(app, exit_code);
  ddpo::AddStatusCommand(app, exit_code);
  ddpo::AddSampleCommand(app, exit_code);
  ddpo::AddExportCommand(app, exit_code);
  ddpo::AddBenchCommand(app, exit_code);
  ddpo::AddParityCommand(app, exit_code);
  ddpo::AddRewardCommand(app, exit_code);
  CLI11_PARSE(app, argc, argv);
  return exit_code;
}
