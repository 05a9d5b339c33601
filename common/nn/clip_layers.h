#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/nn/blocks.h"
#include "common/nn/json_config.h"
#include "common/nn/weights.h"

namespace ddpo {

// Sizes that CLIP's text and image towers share.
struct ClipSizes {
  int64_t hidden = 0;
  int64_t intermediate = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  double layer_norm_eps = 1e-5;
  bool quick_gelu = true;  // x · σ(1.702 x) instead of the exact GELU
};

// From config.json; `defaults` are transformers' own for the tower.
absl::StatusOr<ClipSizes> ReadClipSizes(const JsonConfig& config, const ClipSizes& defaults);

// transformers' CLIPEncoderLayer: self-attention and a two-layer MLP, each after a layer norm and
// with a residual connection.
class ClipLayer {
 public:
  static absl::StatusOr<ClipLayer> Load(WeightLoader& loader, const std::string& prefix,
                                        const ClipSizes& sizes);

  // x [B,L,D] -> [B,L,D]; with `causal` a token sees itself and those before it.
  at::Tensor Forward(const at::Tensor& x, bool causal) const;

 private:
  LayerNorm layer_norm1_, layer_norm2_;
  Linear query_, key_, value_, output_;
  Linear fc1_, fc2_;
  int64_t heads_ = 1;
  bool quick_gelu_ = true;
};

}  // namespace ddpo
