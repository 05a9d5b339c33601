#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ddpo/config/v1/config.pb.h"
#include "tools/report/comparison_summary.h"
#include "tools/run/run_folder.h"

namespace ddpo {

struct FinishRunOptions {
  config::v1::Config config;
  // Reward servers that have config.reward.
  std::vector<std::string> reward_addresses;
  // Gets a line for people as it goes on.
  std::function<void(const std::string&)> note;
  // Asked between batches; true ends it with CANCELLED.
  std::function<bool()> cancelled;
};

// Compares the run's final policy with its base model, draws the sample grids of every saved
// policy, and writes summary.json, samples/ and report.html. NOT_FOUND where the run has no final
// policy.
absl::StatusOr<ComparisonSummary> FinishRun(const RunFolder& run, const FinishRunOptions& options);

}  // namespace ddpo
