#include "common/tensors/image_decode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "common/base/files.h"
#include "common/tensors/png.h"
#include "tests/testing/golden_image.h"
#include "tests/testing/image_pattern.h"
#include "tests/testing/paths.h"

namespace ddpo {
namespace {

using ::testing::AllOf;
using testing::GoldenImage;
using ::testing::HasSubstr;
using testing::ImagePattern;
using testing::SourcePath;

// A binary PPM as Pillow writes it.
Image ReadPpm(const std::string& name) {
  const std::string bytes = ReadFile(SourcePath("tests/goldens/images/" + name)).value();
  Image image;
  int start = 0;
  EXPECT_EQ(std::sscanf(bytes.c_str(), "P6 %d %d 255%n", &image.width, &image.height, &start), 2);
  image.rgb.assign(bytes.begin() + start + 1, bytes.end());
  return image;
}

class ImageDecodeGoldenTest : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(
    Files, ImageDecodeGoldenTest,
    ::testing::Values("black_and_white.png", "grey.png", "grey_16.png", "grey_alpha.png",
                      "grey_transparent.png", "interlaced.png", "palette.png",
                      "palette_transparent.png", "rgb.png", "rgb_16.png", "rgba.png",
                      "with_metadata.png", "one_channel.jpg", "one_pixel.jpg", "progressive.jpg",
                      "quality_10.jpg", "quality_95.jpg", "restart_markers.jpg",
                      "subsampling_422.jpg", "subsampling_444.jpg", "turned_by_exif.jpg"),
    [](const auto& test) {
      std::string name = test.param;
      name[name.find('.')] = '_';
      return name;
    });

TEST_P(ImageDecodeGoldenTest, FindsPillowsPixels) {
  const std::string name = GetParam();
  const Image expected = ReadPpm(name.substr(0, name.find('.')) + ".ppm");
  const auto image = DecodeImage(GoldenImage(name), {});
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->width, expected.width);
  EXPECT_EQ(image->height, expected.height);
  EXPECT_EQ(image->rgb, expected.rgb);
}

TEST_P(ImageDecodeGoldenTest, RefusesEveryTruncation) {
  const std::vector<uint8_t> whole = GoldenImage(GetParam());
  for (size_t size = 0; size < whole.size(); ++size) {
    const absl::Status status = DecodeImage({whole.data(), size}, {}).status();
    ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << size << " bytes: " << status;
  }
}

// What comes out of a damaged file is an error or an image that its own header describes.
TEST_P(ImageDecodeGoldenTest, SurvivesEveryFlippedBit) {
  std::vector<uint8_t> bytes = GoldenImage(GetParam());
  const ImageLimits limits{.max_pixels = 1 << 16};
  for (size_t at = 0; at < bytes.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      bytes[at] ^= static_cast<uint8_t>(1 << bit);
      const auto image = DecodeImage(bytes, limits);
      if (image.ok()) {
        ASSERT_EQ(image->rgb.size(), static_cast<size_t>(image->width) * image->height * 3);
      }
      bytes[at] ^= static_cast<uint8_t>(1 << bit);
    }
  }
}

TEST(ImageDecodeTest, RefusesWhatIsNeither) {
  for (const std::string bytes : {"", "GIF89a..........", "\xff\xd8", "\x89PNG\r\n"}) {
    const absl::Status status =
        DecodeImage({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, {}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("neither a JPEG nor a PNG (" + std::to_string(bytes.size()) + " bytes)"));
  }
}

TEST(ImageDecodeTest, JudgesTheSizeBeforeItDecodes) {
  std::vector<uint8_t> png = GoldenImage("rgb.png");
  EXPECT_EQ(DecodeImage(png, {.max_pixels = 19 * 13 - 1}).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(DecodeImage(png, {.max_pixels = 19 * 13}).ok());
  // A start of frame says 65,500 × 65,500 pixels, 12 GB.
  std::vector<uint8_t> jpeg = GoldenImage("quality_95.jpg");
  const uint8_t frame[] = {0xff, 0xc0, 0, 17, 8};
  const auto at = std::search(jpeg.begin(), jpeg.end(), std::begin(frame), std::end(frame)) + 5;
  ASSERT_LT(at, jpeg.end());
  for (int side : {0, 2}) {
    at[side] = 0xff;
    at[side + 1] = 0xdc;
  }
  const absl::Status status = DecodeImage(jpeg, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("65500 × 65500"), HasSubstr("at most 16777216 pixels")));
}

TEST(PngTest, ReadsBackWhatItWrote) {
  for (const auto& [width, height] : {std::pair(1, 1), {17, 9}, {64, 64}}) {
    const Image image = ImagePattern(0, width, height);
    const auto bytes = EncodePng(image);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    EXPECT_EQ(ReadPngSize(*bytes)->width, width);
    EXPECT_EQ(ReadPngSize(*bytes)->height, height);
    EXPECT_EQ(DecodePng(*bytes)->rgb, image.rgb);
  }
}

TEST(PngTest, RefusesImagesThatAreNone) {
  for (const Image& image : {Image{}, Image{2, 2, std::vector<uint8_t>(11)}}) {
    EXPECT_EQ(EncodePng(image).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(PngTest, RefusesADamagedChecksum) {
  std::vector<uint8_t> bytes = GoldenImage("rgb.png");
  bytes[29] ^= 1;  // of the header
  EXPECT_THAT(std::string(ReadPngSize(bytes).status().message()), HasSubstr("CRC"));
}

}  // namespace
}  // namespace ddpo
