#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/nn/weights.h"

namespace ddpo {

// A LoRA as one forward pass uses it: pair i belongs to the i-th of UNet::lora_targets().
struct LoraPair {
  at::Tensor a;  // [rank,in]
  at::Tensor b;  // [out,rank]
};
struct ForwardLora {
  std::vector<LoraPair> pairs;  // empty: no LoRA
  double scale = 0;
};

// Linear layers without a shared bias that read the same input (to_q, to_k and to_v of a
// self-attention, say), computed in one product, each with a LoRA pair of its own:
// y_i = W_i x + b_i + scale · B_i (A_i x).
class LoraProjection {
 public:
  // `names` are the layers under `prefix`, each with `out_features` rows.
  static absl::StatusOr<LoraProjection> Load(WeightLoader& loader, const std::string& prefix,
                                             const std::vector<std::string>& names,
                                             int64_t in_features, int64_t out_features, bool bias);

  // Full names of the layers, without `.weight`.
  const std::vector<std::string>& layer_names() const { return layer_names_; }
  int64_t in_features() const { return weight_.size(1); }
  int64_t out_features() const { return out_features_; }

  // Says which pairs of a ForwardLora are these layers'.
  void set_lora_indices(std::vector<int64_t> indices) { lora_indices_ = std::move(indices); }

  // x [N,in] -> [N, layers · out], the layers' outputs side by side.
  at::Tensor Forward(const at::Tensor& x, const ForwardLora& lora) const;

  // Forward adds scale · B A to the weights of its layers from here on; the originals are kept.
  void Merge(const ForwardLora& lora);
  void Unmerge() { merged_weight_.reset(); }

 private:
  int64_t out_features_ = 0;
  std::vector<std::string> layer_names_;
  std::vector<int64_t> lora_indices_;
  at::Tensor weight_;         // [layers · out, in]
  at::Tensor bias_;           // [layers · out] or undefined
  at::Tensor merged_weight_;  // undefined where nothing is merged
};

}  // namespace ddpo
