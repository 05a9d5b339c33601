#pragma once

#include <ATen/ATen.h>

#include <array>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/tensors/image.h"

namespace ddpo {

// transformers' CLIPImageProcessor (the one that resizes with Pillow): resize, centre crop, rescale
// and normalize as a model folder's preprocessor_config.json says, with the same numbers.
class ClipImageProcessor {
 public:
  // NOT_FOUND where the folder has no such file; INVALID_ARGUMENT, which names the key, for what is
  // not supported, as any filter but the bicubic one.
  static absl::StatusOr<ClipImageProcessor> Load(const std::string& dir);

  // -> [3,H,W] float32. INVALID_ARGUMENT for an image without pixels or so long and thin that it
  // would be resized to more than 16 million of them.
  absl::StatusOr<at::Tensor> Process(const Image& image) const;

  // -> [B,3,H,W] float32 for one image or more. INVALID_ARGUMENT also where they do not come out at
  // one size, as without a crop.
  absl::StatusOr<at::Tensor> Process(absl::Span<const Image> images) const;

  // What the crop makes of every image; 0 without one.
  int64_t crop_width() const { return center_crop_ ? crop_.width : 0; }
  int64_t crop_height() const { return center_crop_ ? crop_.height : 0; }

 private:
  struct Size {
    int64_t width = 0;
    int64_t height = 0;
  };
  ClipImageProcessor() = default;
  Size ResizedSize(const Image& image) const;

  bool resize_ = true;
  // Of the shorter edge; 0 where size_ says both.
  int64_t shortest_edge_ = 0;
  Size size_;
  bool center_crop_ = true;
  Size crop_;
  // What becomes of each channel's 256 values.
  std::array<std::array<float, 256>, 3> values_{};
};

}  // namespace ddpo
