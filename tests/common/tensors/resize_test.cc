#include "common/tensors/resize.h"

#include <cstdint>
#include <tuple>

#include "gtest/gtest.h"

namespace ddpo {
namespace {

// As in tools/python/goldens/make_resize_goldens.py.
Image Pattern(int width, int height) {
  Image image{width, height, {}};
  for (uint32_t y = 0; y < static_cast<uint32_t>(height); ++y) {
    for (uint32_t x = 0; x < static_cast<uint32_t>(width); ++x) {
      for (uint32_t c = 0; c < 3; ++c) {
        const uint32_t mixed = (x * 73856093u) ^ (y * 19349663u) ^ (c * 83492791u);
        image.rgb.push_back(static_cast<uint8_t>((mixed >> 7) ^ (x * 5 + y * 3)));
      }
    }
  }
  return image;
}

uint64_t Fnv1a(const std::vector<uint8_t>& bytes) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001b3;
  return hash;
}

struct Case {
  int width, height, new_width, new_height;
  uint64_t hash;
};

class ResizeTest : public ::testing::TestWithParam<Case> {};

TEST_P(ResizeTest, GivesPillowsBytes) {
  const Case& c = GetParam();
  const Image resized = ResizeBicubic(Pattern(c.width, c.height), c.new_width, c.new_height);
  EXPECT_EQ(resized.width, c.new_width);
  EXPECT_EQ(resized.height, c.new_height);
  EXPECT_EQ(Fnv1a(resized.rgb), c.hash);
}

// Printed by tools/python/goldens/make_resize_goldens.py with Pillow.
INSTANTIATE_TEST_SUITE_P(Sizes, ResizeTest,
                         ::testing::Values(Case{32, 32, 224, 224, 0x5099d612b04f6adf},
                                           Case{512, 512, 224, 224, 0x3b5c0900ffecafdf},
                                           Case{640, 480, 299, 224, 0x6d8b1a20354f22b6},
                                           Case{7, 5, 3, 9, 0xe9b097191ed437b6},
                                           Case{100, 1, 224, 224, 0xae99214485714e25},
                                           Case{224, 224, 224, 100, 0xb38d0c744a5d1596},
                                           Case{50, 40, 50, 40, 0x29a9f28ece5b74e3}));

TEST(CropTest, FillsOutsideWithBlack) {
  const Image image = Pattern(4, 4);
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
