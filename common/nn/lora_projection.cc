#include "common/nn/lora_projection.h"

#include <ATen/core/grad_mode.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/nn/stable_rows.h"

namespace ddpo {

absl::StatusOr<LoraProjection> LoraProjection::Load(WeightLoader& loader, const std::string& prefix,
                                                    const std::vector<std::string>& names,
                                                    int64_t in_features, int64_t out_features,
                                                    bool bias) {
  LoraProjection projection;
  projection.out_features_ = out_features;
  std::vector<at::Tensor> weights, biases;
  for (const std::string& name : names) {
    const std::string layer = absl::StrCat(prefix, ".", name);
    DDPO_ASSIGN_OR_RETURN(weights.emplace_back(),
                          loader.Take(absl::StrCat(layer, ".weight"), {out_features, in_features}));
    if (bias) {
      DDPO_ASSIGN_OR_RETURN(biases.emplace_back(),
                            loader.Take(absl::StrCat(layer, ".bias"), {out_features}));
    }
    projection.layer_names_.push_back(layer);
  }
  projection.weight_ = at::cat(weights);
  if (bias) projection.bias_ = at::cat(biases);
  return projection;
}

std::vector<at::Tensor> LoraProjection::Forward(const at::Tensor& x,
                                                const ForwardLora& lora) const {
  const at::Tensor rows = PadToStableRows(x);
  const auto layers = static_cast<int64_t>(layer_names_.size());
  const at::Tensor base =
      at::linear(rows, merged_weight_.defined() ? merged_weight_ : weight_, bias_);
  std::vector<at::Tensor> outputs = base.split(out_features_, 1);
  if (!lora.pairs.empty()) {
    // One product for the A of all layers. LoRA computes in float32 whatever the base does, as
    // peft does.
    std::vector<at::Tensor> downs;
    for (const int64_t index : lora_indices_) downs.push_back(lora.pairs[index].a);
    const at::Tensor down = layers == 1 ? downs.front() : at::cat(downs);
    const at::Tensor inner = at::mm(rows.to(down.scalar_type()), down.t());
    const std::vector<at::Tensor> inners = inner.split(inner.size(1) / layers, 1);
    for (int64_t i = 0; i < layers; ++i) {
      const at::Tensor up = lora.pairs[lora_indices_[i]].b.t();
      outputs[i] = at::addmm(outputs[i].to(up.scalar_type()), inners[i], up, 1, lora.scale)
                       .to(base.scalar_type());
    }
  }
  if (rows.size(0) != x.size(0)) {
    for (at::Tensor& output : outputs) output = output.narrow(0, 0, x.size(0));
  }
  return outputs;
}

void LoraProjection::Merge(const ForwardLora& lora) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> deltas;
  for (const int64_t index : lora_indices_) {
    deltas.push_back(at::mm(lora.pairs[index].b, lora.pairs[index].a));
  }
  merged_weight_ =
      (weight_.to(at::kFloat) + lora.scale * at::cat(deltas)).to(weight_.scalar_type());
}

}  // namespace ddpo
