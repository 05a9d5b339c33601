#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/tensors/image.h"

namespace ddpo {

// What an image file says about itself before anything is decoded.
struct ImageSize {
  int64_t width = 0;
  int64_t height = 0;
};

// Encodes as Pillow's save(format="JPEG", quality=quality) does: baseline, 4:2:0, standard Huffman
// tables, libjpeg's accurate DCT; the same number of bytes. INVALID_ARGUMENT for an image without
// pixels or over 65,500 pixels a side.
absl::StatusOr<std::vector<uint8_t>> EncodeJpeg(const Image& image, int quality);

// Reads the header only.
absl::StatusOr<ImageSize> ReadJpegSize(absl::Span<const uint8_t> bytes);

// Decodes RGB and grey files to RGB, as they are stored: an orientation in their EXIF data changes
// nothing. Truncated and otherwise damaged files, CMYK and files of more than 500 scans are
// INVALID_ARGUMENT.
absl::StatusOr<Image> DecodeJpeg(absl::Span<const uint8_t> bytes);

}  // namespace ddpo
