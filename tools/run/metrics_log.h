#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace ddpo {

// Lines of a run's metrics.jsonl. A last line without its newline is still being written and is
// left out; a damaged line is DATA_LOSS with its number. A missing file has no lines.
absl::StatusOr<std::vector<nlohmann::json>> ReadMetricsLog(const std::string& path);

// The number under `key`; `fallback` where it is absent or null (as JSON writes what is not
// finite).
double MetricOr(const nlohmann::json& line, const std::string& key, double fallback);

}  // namespace ddpo
