#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/nn/blocks.h"
#include "common/nn/clip_layers.h"
#include "common/nn/json_config.h"
#include "common/nn/weights.h"

namespace ddpo {

// transformers' CLIPVisionTransformer: a ViT with a class token and a layer norm before its layers.
class ClipVisionTower {
 public:
  // `prefix` is that of its keys, as in `vision_model.` or `vision_tower.vision_model.`;
  // vision_config is a CLIPVisionConfig. The layer norm of Pooled may be absent from the file.
  static absl::StatusOr<ClipVisionTower> Load(WeightLoader& loader, const std::string& prefix,
                                              const JsonConfig& vision_config);

  // pixels [B,3,S,S] of any number type and device -> transformers' hidden_states[layer],
  // [B,1+patches,D] in the weights' number type, the class token first. 0 is what enters the first
  // layer, layers() what leaves the last one; negative numbers count from the end, −1 being the
  // last. Computes no layers beyond.
  at::Tensor HiddenState(const at::Tensor& pixels, int64_t layer) const;

  // pixels [B,3,S,S] -> pooler_output [B,D]: the class token after the last layer norm. Only where
  // has_pooling().
  at::Tensor Pooled(const at::Tensor& pixels) const;
  bool has_pooling() const { return post_layer_norm_.has_value(); }

  int64_t image_size() const { return image_size_; }
  int64_t patch_size() const { return patch_size_; }
  // Of the class token and the patches together.
  int64_t positions() const { return position_embedding_.size(0); }
  int64_t hidden() const { return sizes_.hidden; }
  int64_t layers() const { return sizes_.layers; }

 private:
  // [B,1+patches,D] before the first layer.
  at::Tensor Embed(const at::Tensor& pixels) const;

  ClipSizes sizes_;
  int64_t image_size_ = 0;
  int64_t patch_size_ = 0;
  at::Tensor class_embedding_;     // [D]
  at::Tensor patch_weight_;        // [D,3·P·P]
  at::Tensor position_embedding_;  // [1+patches,D]
  LayerNorm pre_layer_norm_;
  std::vector<ClipLayer> layers_;
  std::optional<LayerNorm> post_layer_norm_;
};

}  // namespace ddpo
