#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/base/shutdown.h"
#include "ddpo/config/v1/config.pb.h"
#include "tools/run/run_folder.h"

namespace ddpo {

struct RunClusterOptions {
  config::v1::Config config;
  // Where progress goes, and the terminal's width there (0: not a terminal).
  std::ostream* out = nullptr;
  int columns = 0;
  // What to do once training is complete, while the reward servers still run at these addresses.
  std::function<absl::Status(const std::vector<std::string>& reward_addresses)> at_end;
};

// Runs the whole local cluster of a prepared folder until the run is complete, or fails, or is
// asked to stop: CANCELLED then, with everything saved. A second signal ends it at once.
absl::Status RunCluster(const RunFolder& run, const RunClusterOptions& options,
                        ShutdownSignal& shutdown);

}  // namespace ddpo
