#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ddpo/config/v1/config.pb.h"

namespace ddpo {

// The prompts of a run, in the order of their list: a named set of assets/prompts/, a file with one
// prompt a line, or the list itself. INVALID_ARGUMENT if there are none or one is empty; NOT_FOUND
// names the file or the known sets.
absl::StatusOr<std::vector<std::string>> LoadPrompts(const config::v1::PromptsConfig& config);

// The prompts of a text file, one a line; blank lines and lines that start with # are skipped.
// INVALID_ARGUMENT if it holds none.
absl::StatusOr<std::vector<std::string>> ReadPromptFile(const std::string& path);

}  // namespace ddpo
