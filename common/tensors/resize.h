#pragma once

#include "common/tensors/image.h"

namespace ddpo {

// A rectangle of an image, in pixels; right and bottom are exclusive.
struct CropBox {
  int left = 0;
  int top = 0;
  int right = 0;
  int bottom = 0;
};

// Resizes with the antialiased bicubic filter (a = −0.5) in the fixed-point arithmetic of
// Pillow's Image.resize(size, BICUBIC): the same bytes as Pillow 13's. width and height are at
// least 1. Source of the method: Pillow, src/libImaging/Resample.c.
Image ResizeBicubic(const Image& image, int width, int height);

// Cuts a box out. Pixels outside the image are black, as with Pillow's Image.crop.
Image Crop(const Image& image, const CropBox& box);

}  // namespace ddpo
