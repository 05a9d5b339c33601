#pragma once

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "common/tensors/image_decode.h"
#include "common/tensors/jpeg.h"
#include "common/tensors/png.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/testing/golden_image.h"

namespace ddpo::fuzz {

inline constexpr int64_t kMaxPixels = 1 << 16;

inline absl::Span<const uint8_t> ToSpan(const std::string& bytes) {
  return {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
}

inline std::vector<std::string> GoldenImages(const std::vector<std::string>& names) {
  std::vector<std::string> images;
  for (const std::string& name : names) {
    const std::vector<uint8_t> bytes = testing::GoldenImage(name);
    images.emplace_back(bytes.begin(), bytes.end());
  }
  return images;
}

inline std::vector<std::string> GoldenJpegs() {
  return GoldenImages({"cmyk.jpg", "one_channel.jpg", "one_pixel.jpg", "progressive.jpg",
                       "quality_10.jpg", "quality_95.jpg", "restart_markers.jpg",
                       "subsampling_422.jpg", "subsampling_444.jpg", "turned_by_exif.jpg"});
}

inline std::vector<std::string> GoldenPngs() {
  return GoldenImages({"black_and_white.png", "grey.png", "grey_16.png", "grey_alpha.png",
                       "grey_transparent.png", "interlaced.png", "palette.png",
                       "palette_transparent.png", "rgb.png", "rgb_16.png", "rgba.png",
                       "with_metadata.png"});
}

// Whether they are an image. Whatever the bytes are: an image of the size that the header says and
// within the limits, with all of its pixels set, or a status that says what is wrong.
inline bool CheckDecoding(const std::string& bytes) {
  const absl::StatusOr<ImageSize> size =
      bytes.starts_with("\x89PNG") ? ReadPngSize(ToSpan(bytes)) : ReadJpegSize(ToSpan(bytes));
  const absl::StatusOr<Image> image = DecodeImage(ToSpan(bytes), {.max_pixels = kMaxPixels});
  if (!image.ok()) {
    const bool too_large = size.ok() && size->width * size->height > kMaxPixels;
    // What does not start as a JPEG or PNG is not looked into.
    Require(image.status().code() == (too_large ? absl::StatusCode::kResourceExhausted
                                                : absl::StatusCode::kInvalidArgument) ||
                absl::StrContains(image.status().message(), "neither"),
            image.status().ToString());
    Require(!image.status().message().empty(), "an error says nothing");
    return false;
  }
  Require(size.ok() && size->width == image->width && size->height == image->height,
          "the image has another size than its header says");
  Require(int64_t{image->width} * image->height <= kMaxPixels, "the image is over the limit");
  Require(image->rgb.size() == size_t{3} * image->width * image->height, "bytes are missing");
  const absl::StatusOr<Image> again = DecodeImage(ToSpan(bytes), {.max_pixels = kMaxPixels});
  Require(again.ok() && again->rgb == image->rgb, "the same bytes give another image");
  return true;
}

}  // namespace ddpo::fuzz
