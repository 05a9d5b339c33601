#include "common/tensors/resize.h"

#include <cstdint>
#include <tuple>

#include "gtest/gtest.h"
#include "tests/testing/image_pattern.h"

namespace ddpo {
namespace {

using testing::ImagePattern;

uint64_t Fnv1a(const std::vector<uint8_t>& bytes) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001b3;
  return hash;
}

struct Case {
  uint32_t index;
  int width, height, new_width, new_height;
  uint64_t hash;
};

class ResizeTest : public ::testing::TestWithParam<Case> {};

TEST_P(ResizeTest, GivesPillowsBytes) {
  const Case& c = GetParam();
  const Image resized =
      ResizeBicubic(ImagePattern(c.index, c.width, c.height), c.new_width, c.new_height);
  EXPECT_EQ(resized.width, c.new_width);
  EXPECT_EQ(resized.height, c.new_height);
  EXPECT_EQ(Fnv1a(resized.rgb), c.hash);
}

// Printed by tools/python/goldens/make_resize_goldens.py with Pillow.
INSTANTIATE_TEST_SUITE_P(Sizes, ResizeTest,
                         ::testing::Values(Case{0, 32, 32, 224, 224, 0x4d264429b0ab88dc},
                                           Case{1, 512, 512, 224, 224, 0x20fa7ab710a436a3},
                                           Case{2, 640, 480, 299, 224, 0x4ed2a7305b65441a},
                                           Case{3, 7, 5, 3, 9, 0x5bb18a27b077cc3e},
                                           Case{4, 100, 1, 224, 224, 0xd0d316affd84eee5},
                                           Case{5, 224, 224, 224, 100, 0x6baa387777fb0e87},
                                           Case{6, 50, 40, 50, 40, 0x1e83bb8e57b87605},
                                           Case{7, 480, 1120, 224, 522, 0x70a83251e051aae7},
                                           Case{8, 50, 60, 45, 50, 0x190622fdbd6e2dd5},
                                           Case{9, 50, 61, 45, 50, 0x7ac3554305d3c1dd}));

TEST(CropTest, FillsOutsideWithBlack) {
  const Image image = ImagePattern(0, 4, 4);
  const Image cropped = Crop(image, {-1, 1, 3, 6});
  ASSERT_EQ(cropped.width, 4);
  ASSERT_EQ(cropped.height, 5);
  EXPECT_EQ(cropped.rgb[0], 0);                 // left of the image
  EXPECT_EQ(cropped.rgb[3], image.rgb[4 * 3]);  // (0, 1) of the image
  EXPECT_EQ(cropped.rgb[(2 * 4 + 3) * 3], image.rgb[(3 * 4 + 2) * 3]);
  EXPECT_EQ(cropped.rgb[(4 * 4 + 1) * 3], 0);  // below it
}

}  // namespace
}  // namespace ddpo
