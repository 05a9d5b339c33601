#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ddpo {

// Checks that a folder's model_index.json describes a StableDiffusionPipeline with the components
// of the SD 1.x family. NOT_FOUND for a missing folder; INVALID_ARGUMENT says which key of which
// file is what, and what was expected.
absl::Status CheckModelIndex(const std::string& dir);

// Pipeline::ModelDigest without the check.
absl::StatusOr<std::string> DigestModelFolder(const std::string& dir);

}  // namespace ddpo
