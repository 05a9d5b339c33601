#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/tensors/image.h"

namespace ddpo {

// Writes a PNG.
absl::Status WritePng(const std::string& path, const Image& image);

// Writes images of one size as one PNG, in rows; small ones are magnified, pixel by pixel, so that
// a person sees them.
absl::Status WriteGrid(const std::string& path, absl::Span<const Image> images, int columns);

}  // namespace ddpo
