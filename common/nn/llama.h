#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/nn/blocks.h"
#include "common/nn/llama_config.h"
#include "common/nn/weights.h"

namespace ddpo {

// What a decoder keeps of the tokens that it has read, for a batch of sequences.
struct LlamaCache {
  int64_t batch = 0;         // sequences
  int64_t capacity = 0;      // most tokens of each, padding included
  int64_t length = 0;        // read so far
  at::Tensor is_token = {};  // [B,capacity] bool; false for padding
  // One a layer, [B,key-value heads,capacity,head_dim].
  std::vector<at::Tensor> keys = {}, values = {};
};

// transformers' RMSNorm: x / √(mean(x²) + ε) in float32, times a weight.
class RmsNorm {
 public:
  static absl::StatusOr<RmsNorm> Load(WeightLoader& loader, const std::string& prefix,
                                      int64_t channels, double eps);
  at::Tensor Forward(const at::Tensor& x) const;

 private:
  at::Tensor weight_;
  double eps_ = 1e-6;
};

// transformers' LlamaModel with its output layer (arXiv 2302.13971): RMSNorm, rotary positions
// (arXiv 2104.09864, the halves of a head rotated against each other), grouped-query attention and
// a gated SiLU MLP.
class Llama {
 public:
  // Keys begin with `prefix` (as `model.`); the output layer's weight is `head_key` (as
  // `lm_head.weight`), which is not read where the embeddings are tied.
  static absl::StatusOr<Llama> Load(WeightLoader& loader, const LlamaConfig& config,
                                    const std::string& prefix, const std::string& head_key);

  // ids [B,L] int64 -> [B,L,D]. An id outside the vocabulary throws c10::Error.
  at::Tensor Embed(const at::Tensor& ids) const;

  // embeddings [B,L,D] and is_token [B,L] bool, false for padding, which may stand before or after
  // a sequence -> hidden states after the last norm, [B,L,D]. Continues the sequences in the cache.
  // A token's position is the number of tokens before it in its sequence, as transformers'
  // generate counts from the attention mask. What comes out at padding has no meaning.
  at::Tensor Forward(const at::Tensor& embeddings, const at::Tensor& is_token,
                     LlamaCache* cache) const;

  // hidden [...,D] -> [...,V]
  at::Tensor Logits(const at::Tensor& hidden) const;

  const LlamaConfig& config() const { return config_; }

 private:
  struct Layer {
    RmsNorm input_norm, post_attention_norm;
    Linear query, key, value, output;
    Linear gate, up, down;
  };
  static absl::StatusOr<Layer> LoadLayer(WeightLoader& loader, const LlamaConfig& config,
                                         const std::string& prefix);
  struct Step;
  at::Tensor Attend(const Layer& layer, size_t index, const at::Tensor& x, const Step& step,
                    LlamaCache* cache) const;

  LlamaConfig config_;
  at::Tensor token_embedding_;  // [V,D]
  std::vector<Layer> layers_;
  RmsNorm norm_;
  at::Tensor head_weight_;  // [V,D]
};

}  // namespace ddpo
