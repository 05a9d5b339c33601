#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "common/nn/blocks.h"
#include "common/nn/clip_image_processor.h"
#include "common/nn/clip_vision.h"
#include "common/nn/network_options.h"

namespace ddpo {

// What CLIP makes of an image: the image tower and its projection, with the folder's image
// processor.
class ClipImageEncoder {
 public:
  // A folder in transformers' layout of a CLIPModel, whose text tower is left out, or of a
  // CLIPVisionModelWithProjection. Errors name the file, the key and both shapes.
  static absl::StatusOr<ClipImageEncoder> Load(const std::string& dir,
                                               const NetworkOptions& options);

  const ClipImageProcessor& processor() const { return processor_; }

  // pixels [B,3,S,S] of the processor -> image_embeds [B,projection_dim()] float32, not normalized.
  at::Tensor Encode(const at::Tensor& pixels) const;

  int64_t projection_dim() const { return projection_dim_; }

 private:
  ClipImageEncoder(ClipImageProcessor processor, ClipVisionTower tower)
      : processor_(std::move(processor)), tower_(std::move(tower)) {}

  ClipImageProcessor processor_;
  ClipVisionTower tower_;
  Linear projection_;
  int64_t projection_dim_ = 0;
};

}  // namespace ddpo
