#pragma once

#include "absl/types/span.h"
#include "common/tensors/image.h"

namespace ddpo {

struct GridOptions {
  int columns = 6;
  int padding = 2;           // pixels between images and around them
  uint8_t background = 255;  // grey level
  int magnification = 1;     // each pixel becomes a square of this side
};

// Images of one size in rows, from the top left; an image without pixels if there are none.
Image MakeImageGrid(absl::Span<const Image> images, const GridOptions& options);

}  // namespace ddpo
