#include "common/tensors/image_decode.h"

#include <algorithm>
#include <array>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/tensors/jpeg.h"
#include "common/tensors/png.h"

namespace ddpo {
namespace {

constexpr std::array<uint8_t, 3> kJpegStart = {0xff, 0xd8, 0xff};
constexpr std::array<uint8_t, 8> kPngStart = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

template <size_t N>
bool StartsWith(absl::Span<const uint8_t> bytes, const std::array<uint8_t, N>& start) {
  return bytes.size() >= N && std::equal(start.begin(), start.end(), bytes.begin());
}

absl::Status CheckSize(const ImageSize& size, const ImageLimits& limits) {
  // Both sides are at most 2^31, so the product fits.
  if (size.width * size.height <= limits.max_pixels) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("an image of ", size.width, " × ", size.height,
                                                   " pixels; at most ", limits.max_pixels,
                                                   " pixels are decoded"));
}

}  // namespace

absl::StatusOr<Image> DecodeImage(absl::Span<const uint8_t> bytes, const ImageLimits& limits) {
  if (StartsWith(bytes, kJpegStart)) {
    DDPO_ASSIGN_OR_RETURN(const ImageSize size, ReadJpegSize(bytes));
    DDPO_RETURN_IF_ERROR(CheckSize(size, limits));
    return DecodeJpeg(bytes);
  }
  if (StartsWith(bytes, kPngStart)) {
    DDPO_ASSIGN_OR_RETURN(const ImageSize size, ReadPngSize(bytes));
    DDPO_RETURN_IF_ERROR(CheckSize(size, limits));
    return DecodePng(bytes);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("neither a JPEG nor a PNG (", bytes.size(), " bytes)"));
}

}  // namespace ddpo
