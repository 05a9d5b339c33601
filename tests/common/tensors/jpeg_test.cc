#include "common/tensors/jpeg.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/base/files.h"
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

TEST(JpegTest, EncodesToAsManyBytesAsPillow) {
  const auto rows =
      nlohmann::json::parse(ReadFile(SourcePath("tests/goldens/images/jpeg_sizes.json")).value());
  ASSERT_EQ(rows.size(), 200u);
  for (const auto& row : rows) {
    const auto bytes = EncodeJpeg(ImagePattern(row[0], row[1], row[2]), 95);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    EXPECT_EQ(bytes->size(), row[3].get<size_t>()) << row;
  }
}

TEST(JpegTest, ReadsBackWhatItWroteButForTheLoss) {
  const Image image = ImagePattern(1, 40, 24);
  const Image read = DecodeJpeg(EncodeJpeg(image, 95).value()).value();
  ASSERT_EQ(read.width, 40);
  ASSERT_EQ(read.height, 24);
  int64_t difference = 0;
  for (size_t i = 0; i < image.rgb.size(); ++i) difference += std::abs(image.rgb[i] - read.rgb[i]);
  EXPECT_LT(static_cast<double>(difference) / static_cast<double>(image.rgb.size()), 5);
}

TEST(JpegTest, RefusesImagesThatAreNone) {
  for (const Image& image :
       {Image{}, Image{0, 4, {}}, Image{2, 2, std::vector<uint8_t>(11)},
        Image{65501, 1, std::vector<uint8_t>(65501 * 3)}, Image{-1, -1, {0, 0, 0}}}) {
    const absl::Status status = EncodeJpeg(image, 95).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("cannot encode"), HasSubstr(std::to_string(image.width))));
  }
}

TEST(JpegTest, ReadsTheSizeFromTheHeaderAlone) {
  std::vector<uint8_t> bytes = GoldenImage("progressive.jpg");
  bytes.resize(400);
  const auto size = ReadJpegSize(bytes);
  ASSERT_TRUE(size.ok()) << size.status();
  EXPECT_EQ(size->width, 19);
  EXPECT_EQ(size->height, 13);
  EXPECT_FALSE(DecodeJpeg(bytes).ok());
}

TEST(JpegTest, RefusesFourColourPrintingFiles) {
  const absl::Status status = DecodeJpeg(GoldenImage("cmyk.jpg")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("CMYK"));
}

// A marker with what belongs to it: for a start of scan the scan's data too.
std::vector<std::vector<uint8_t>> Segments(const std::vector<uint8_t>& jpeg) {
  std::vector<size_t> begins;
  size_t at = 2;
  while (at + 4 <= jpeg.size()) {
    begins.push_back(at);
    const bool scan = jpeg[at + 1] == 0xda;
    at += 2 + static_cast<size_t>(jpeg[at + 2]) * 256 + jpeg[at + 3];
    while (scan && !(jpeg[at] == 0xff && jpeg[at + 1] != 0)) ++at;
  }
  std::vector<std::vector<uint8_t>> segments = {{jpeg.begin(), jpeg.begin() + 2}};
  begins.push_back(at);
  for (size_t i = 0; i + 1 < begins.size(); ++i) {
    segments.emplace_back(jpeg.begin() + static_cast<ptrdiff_t>(begins[i]),
                          jpeg.begin() + static_cast<ptrdiff_t>(begins[i + 1]));
  }
  segments.emplace_back(jpeg.begin() + static_cast<ptrdiff_t>(at), jpeg.end());
  return segments;
}

// A few bytes a scan make a decoder go over all pixels again: thousands of them in a small file
// would keep it busy for minutes.
TEST(JpegTest, RefusesAFileOfVeryManyScans) {
  const auto repeated = [](int times) {
    std::vector<uint8_t> bytes;
    int scans = 0;
    for (std::vector<uint8_t> segment : Segments(GoldenImage("progressive.jpg"))) {
      const bool scan = segment[1] == 0xda;
      if (scan) ++scans;
      // The first scan holds the means; of those behind it the first gets its full precision, so
      // that it may come again, and the others are left out.
      if (scan && scans > 2) continue;
      if (scans == 2 && scan) segment[4 + 1 + 2 * segment[4] + 2] = 0;
      for (int i = 0; i < (scan && scans == 2 ? times : 1); ++i) {
        bytes.insert(bytes.end(), segment.begin(), segment.end());
      }
    }
    return bytes;
  };
  EXPECT_TRUE(DecodeJpeg(repeated(100)).ok()) << DecodeJpeg(repeated(100)).status();
  const absl::Status status = DecodeJpeg(repeated(1000)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("scans"));
}

}  // namespace
}  // namespace ddpo
