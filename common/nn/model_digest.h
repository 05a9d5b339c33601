#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace ddpo {

// SHA-256, hexadecimal, over the names and contents of a model folder's weights (model*.safetensors
// and their index) and of these further files of it. NOT_FOUND for one that is not there.
absl::StatusOr<std::string> ModelDigest(const std::string& dir,
                                        const std::vector<std::string>& further_files);

}  // namespace ddpo
