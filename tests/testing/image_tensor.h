#pragma once

#include <ATen/ATen.h>

#include <cstring>
#include <vector>

#include "common/tensors/image.h"

namespace ddpo::testing {

// pixels [H,W,3] uint8.
inline Image ImageOf(const at::Tensor& pixels) {
  const at::Tensor rows = pixels.contiguous();
  Image image{static_cast<int>(rows.size(1)), static_cast<int>(rows.size(0)), {}};
  image.rgb.resize(rows.numel());
  std::memcpy(image.rgb.data(), rows.const_data_ptr<uint8_t>(), image.rgb.size());
  return image;
}

// pixels [B,H,W,3] uint8.
inline std::vector<Image> ImagesOf(const at::Tensor& pixels) {
  std::vector<Image> images;
  for (const at::Tensor& image : pixels.unbind()) images.push_back(ImageOf(image));
  return images;
}

}  // namespace ddpo::testing
