#pragma once

#include <ATen/ATen.h>

#include <array>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/tensors/image.h"

namespace ddpo {

// transformers' CLIPImageProcessor (the one that resizes with Pillow) and LlavaImageProcessor: pad
// to a square, resize, centre crop, rescale and normalize as a model folder's
// preprocessor_config.json says, with the same numbers.
class ClipImageProcessor {
 public:
  // NOT_FOUND where the folder has no such file; INVALID_ARGUMENT, which names the key, for what is
  // not supported, as any filter but the bicubic one.
  static absl::StatusOr<ClipImageProcessor> Load(const std::string& dir);

  // -> [3,H,W] float32. INVALID_ARGUMENT for an image without pixels or so long and thin that it
  // would be padded or resized to more than 16 million of them.
  absl::StatusOr<at::Tensor> Process(const Image& image) const;

  // -> [B,3,H,W] float32 for one image or more. INVALID_ARGUMENT also where they do not come out at
  // one size, as without a crop.
  absl::StatusOr<at::Tensor> Process(absl::Span<const Image> images) const;

  // The size of what comes out; 0 where it depends on the image.
  int64_t output_width() const { return OutputSize().width; }
  int64_t output_height() const { return OutputSize().height; }

 private:
  struct Size {
    int64_t width = 0;
    int64_t height = 0;
  };
  ClipImageProcessor() = default;
  Size OutputSize() const;
  Size ResizedSize(const Image& image) const;
  Image PadToSquare(const Image& image) const;
  absl::StatusOr<at::Tensor> ProcessPadded(const Image& image) const;

  bool pad_to_square_ = false;
  std::array<uint8_t, 3> background_{};
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
