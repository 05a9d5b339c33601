#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/tensors/image.h"

namespace ddpo {

struct ImageLimits {
  // Largest width × height; judged by the header, before anything is decoded.
  int64_t max_pixels = 16 << 20;
};

// Decodes JPEG or PNG, whichever the first bytes say. RESOURCE_EXHAUSTED for an image over the
// limits, INVALID_ARGUMENT for anything else that is wrong.
absl::StatusOr<Image> DecodeImage(absl::Span<const uint8_t> bytes, const ImageLimits& limits);

}  // namespace ddpo
