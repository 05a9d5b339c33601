#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "absl/status/statusor.h"
#include "common/nn/json_config.h"

namespace ddpo {

// transformers' LlamaConfig, as far as the decoder's computation depends on it.
struct LlamaConfig {
  int64_t vocabulary = 0;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t key_value_heads = 0;  // each serves heads / key_value_heads query heads
  int64_t head_dim = 0;
  double rms_norm_eps = 1e-6;
  bool attention_bias = false;
  bool mlp_bias = false;
  // The output layer's weight is the token embedding.
  bool tie_word_embeddings = false;
  // Rotation of each pair of features from a position to the next, in radians, float32
  // [head_dim/2]: rope_theta^(−2i/head_dim), stretched as rope_scaling says (`default`, `linear`
  // and `llama3`).
  at::Tensor inverse_frequencies;
};

// Reads a config.json or its text_config. INVALID_ARGUMENT names the key, its value and what is
// supported for anything that would change the computation and that Llama does not do.
absl::StatusOr<LlamaConfig> ReadLlamaConfig(const JsonConfig& config);

}  // namespace ddpo
