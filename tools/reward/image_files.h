#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ddpo {

// The image files that the paths stand for, in their order; a folder stands for its own .jpg, .jpeg
// and .png files, by name. Looks at the first bytes of each. NOT_FOUND for a path that is not there
// and a folder without images; INVALID_ARGUMENT for a file that is neither JPEG nor PNG.
absl::StatusOr<std::vector<std::string>> FindImages(const std::vector<std::string>& paths);

// A prompt for each image from a text file: either as many lines as there are images, in their
// order, or lines `FILE NAME<tab>PROMPT`, one for each image, in any order. Blank lines and those
// that start with # don't count. INVALID_ARGUMENT says which image has none.
absl::StatusOr<std::vector<std::string>> ReadPrompts(const std::string& file,
                                                     const std::vector<std::string>& images);

}  // namespace ddpo
