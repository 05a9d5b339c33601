#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace ddpo {

// Where the heads of queries, keys and values lie in the rows of their matrices, as fused
// projections leave them.
struct AttentionLayout {
  int64_t batch = 0;  // sequences
  int64_t heads = 0;
  int64_t channels = 0;  // of all heads together
};

// Whether SmallAttention is worth it: float32 on the CPU and sequences so short that a head's keys
// and values stay in the first-level cache.
bool SuitsSmallAttention(const at::Tensor& queries, int64_t query_length, int64_t key_length,
                         int64_t channels, int64_t heads);

// softmax(q kᵀ / √d) v by head, without LibTorch's cost of handling each head as a matrix product.
// Self-attention: qkv [B·S,3C] holds queries, keys and values side by side -> [B·S,C].
at::Tensor SmallSelfAttention(const at::Tensor& qkv, const AttentionLayout& layout);
// queries [B·S,C] attend to keys and values [B·L,2C] -> [B·S,C].
at::Tensor SmallCrossAttention(const at::Tensor& queries, const at::Tensor& keys_values,
                               const AttentionLayout& layout);

}  // namespace ddpo
