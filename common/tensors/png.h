#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/tensors/image.h"
#include "common/tensors/jpeg.h"

namespace ddpo {

// Encodes as an 8-bit RGB PNG.
absl::StatusOr<std::vector<uint8_t>> EncodePng(const Image& image);

// Reads the header only.
absl::StatusOr<ImageSize> ReadPngSize(absl::Span<const uint8_t> bytes);

// Decodes to 8-bit RGB: palettes and grey are expanded and transparency is dropped, as Pillow's
// convert("RGB") does; 16 bits become the nearest 8. Truncated and otherwise damaged files are
// INVALID_ARGUMENT.
absl::StatusOr<Image> DecodePng(absl::Span<const uint8_t> bytes);

}  // namespace ddpo
