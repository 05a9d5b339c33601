#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/nn/attention.h"
#include "common/nn/blocks.h"
#include "common/nn/weights.h"

namespace ddpo {

// diffusers' BasicTransformerBlock: self-attention, attention to the text, a GEGLU feed-forward,
// each after a LayerNorm and with a residual connection.
class TransformerBlock {
 public:
  static absl::StatusOr<TransformerBlock> Load(WeightLoader& loader, const std::string& prefix,
                                               int64_t channels, int64_t heads,
                                               int64_t context_dim);

  // x [B·S,C] -> [B·S,C]. text: this block's keys and values of the text.
  at::Tensor Forward(const TokenMatrix& x, const KeyValue& text, const ForwardLora& lora) const;

  Attention& self_attention() { return self_attention_; }
  Attention& text_attention() { return text_attention_; }
  const Attention& text_attention() const { return text_attention_; }

 private:
  LayerNorm norm1_, norm2_, norm3_;
  Attention self_attention_, text_attention_;
  Linear feed_forward_in_, feed_forward_out_;
};

// diffusers' Transformer2DModel over pixels, with a linear or a 1 × 1 convolution before and after
// its blocks, which are the same on a matrix of pixels.
class Transformer2D {
 public:
  struct Sizes {
    int64_t channels;
    int64_t heads;
    int64_t layers;
    int64_t context_dim;
    int64_t norm_num_groups;
    bool use_linear_projection;
  };
  static absl::StatusOr<Transformer2D> Load(WeightLoader& loader, const std::string& prefix,
                                            const Sizes& sizes);

  // x [B,C,h,w] -> [B,C,h,w]. text: keys and values for each of blocks(), in order.
  at::Tensor Forward(const at::Tensor& x, const KeyValue* text, const ForwardLora& lora) const;

  std::vector<TransformerBlock>& blocks() { return blocks_; }
  const std::vector<TransformerBlock>& blocks() const { return blocks_; }

 private:
  GroupNorm norm_;
  Linear proj_in_, proj_out_;
  std::vector<TransformerBlock> blocks_;
};

}  // namespace ddpo
