#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/nn/lora_projection.h"
#include "common/nn/weights.h"

namespace ddpo {

// A batch of sequences as one matrix: `rows` [B·S,C] for B sequences of S tokens.
struct TokenMatrix {
  at::Tensor rows;
  int64_t batch = 0;

  int64_t length() const { return rows.size(0) / batch; }
};

// Keys and values of a sequence side by side, [B·L,2C].
using KeyValue = TokenMatrix;

// diffusers' Attention as the SD 1.x family uses it: to_q, to_k and to_v without bias, to_out.0
// with one, no mask. Self-attention, or attention to a context of `context_dim` features.
class Attention {
 public:
  static absl::StatusOr<Attention> LoadSelf(WeightLoader& loader, const std::string& prefix,
                                            int64_t channels, int64_t heads);
  static absl::StatusOr<Attention> LoadCross(WeightLoader& loader, const std::string& prefix,
                                             int64_t channels, int64_t heads, int64_t context_dim);

  // x [B·S,C] attends to itself -> [B·S,C].
  at::Tensor ForwardSelf(const TokenMatrix& x, const ForwardLora& lora) const;

  // x [B·S,C] attends to a context -> [B·S,C].
  at::Tensor ForwardCross(const TokenMatrix& x, const KeyValue& context,
                          const ForwardLora& lora) const;
  // context [B·L,D].
  KeyValue ContextKeyValue(const TokenMatrix& context, const ForwardLora& lora) const;

  std::vector<LoraProjection*> projections();

 private:
  int64_t heads_ = 0;
  LoraProjection query_;      // to_q, to_k and to_v in self-attention, else to_q
  LoraProjection key_value_;  // to_k and to_v of a context; unused in self-attention
  LoraProjection out_;
};

}  // namespace ddpo
