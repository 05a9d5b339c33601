#pragma once

#include <cstddef>
#include <cstdint>

#include "common/tensors/image.h"

namespace ddpo::testing {

// Chris Wellons' 32-bit integer hash `lowbias32`.
inline uint32_t MixBits(uint32_t value) {
  value ^= value >> 16;
  value *= 0x7feb352d;
  value ^= value >> 15;
  value *= 0x846ca68b;
  return value ^ (value >> 16);
}

// A picture of noise, a ramp, blocks, one colour, or a ramp with weak noise, by turns. The same
// pixels as tools/python/reference/image_pattern.py, whose pictures Pillow worked on.
inline Image ImagePattern(uint32_t index, int width, int height) {
  Image image{width, height, {}};
  image.rgb.reserve(static_cast<size_t>(width) * height * 3);
  for (uint32_t y = 0; y < static_cast<uint32_t>(height); ++y) {
    for (uint32_t x = 0; x < static_cast<uint32_t>(width); ++x) {
      for (uint32_t c = 0; c < 3; ++c) {
        const auto hashed = [&](uint32_t column, uint32_t row) {
          return MixBits(column * 73856093 ^ row * 19349663 ^ c * 83492791 ^ (index << 20));
        };
        const uint32_t ramp = x * (index % 7 + 1) + y * (index % 11 + 2) + c * 40;
        uint32_t value = 0;
        switch (index % 5) {
          case 0:
            value = hashed(x, y);
            break;
          case 1:
            value = ramp;
            break;
          case 2:
            value = hashed(x / 8, y / 8);
            break;
          case 3:
            value = hashed(0, 0);
            break;
          default:
            value = ramp + hashed(x, y) % 16;
        }
        image.rgb.push_back(static_cast<uint8_t>(value));
      }
    }
  }
  return image;
}

}  // namespace ddpo::testing
