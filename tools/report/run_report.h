#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/tensors/image.h"
#include "tools/report/comparison_summary.h"

namespace ddpo {

// One prompt and seed, drawn by the base model and by the final policy.
struct BeforeAfter {
  std::string prompt;
  uint64_t seed = 0;
  Image before;
  Image after;
  double reward_before = 0;
  double reward_after = 0;
};

// Images of one moment of training, prompt by prompt in the order of RunReport::pairs.
struct GridOfEpoch {
  int64_t epoch = 0;  // updates that the policy had seen; 0 is the base model
  std::vector<Image> images;
};

// All that report.html shows.
struct RunReport {
  std::string name;
  std::string model;
  std::string reward;
  std::string config_yaml;
  std::vector<nlohmann::json> metrics;  // lines of metrics.jsonl
  std::optional<ComparisonSummary> summary;
  std::vector<BeforeAfter> pairs;
  std::vector<GridOfEpoch> grids;
};

// One HTML page that opens from disk without network: images are data URIs, charts inline SVG.
absl::StatusOr<std::string> RenderReport(const RunReport& report);

}  // namespace ddpo
