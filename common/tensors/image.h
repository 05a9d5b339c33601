#pragma once

#include <cstdint>
#include <vector>

namespace ddpo {

// An 8-bit RGB image. `rgb` holds height × width × 3 bytes, rows from the top.
struct Image {
  int width = 0;
  int height = 0;
  std::vector<uint8_t> rgb;
};

}  // namespace ddpo
