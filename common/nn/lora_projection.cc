#include "common/nn/lora_projection.h"

#include <ATen/core/grad_mode.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/nn/lora_linear.h"
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
  for (size_t i = 0; i < names.size(); ++i) {
    const auto row = static_cast<int64_t>(i) * out_features;
    loader.Keep(projection.layer_names_[i] + ".weight", projection.weight_, row);
    if (bias) loader.Keep(projection.layer_names_[i] + ".bias", projection.bias_, row);
  }
  return projection;
}

at::Tensor LoraProjection::Forward(const at::Tensor& x, const ForwardLora& lora) const {
  const at::Tensor& weight = merged_weight_.defined() ? merged_weight_ : weight_;
  if (lora.pairs.empty()) {
    return WithStableRows(x,
                          [&](const at::Tensor& rows) { return at::linear(rows, weight, bias_); });
  }
  std::vector<at::Tensor> downs, ups;
  for (const int64_t index : lora_indices_) {
    downs.push_back(lora.pairs[index].a);
    ups.push_back(lora.pairs[index].b);
  }
  const bool one = downs.size() == 1;
  const at::Tensor down = one ? downs.front() : at::cat(downs);
  const at::Tensor up = one ? ups.front() : at::cat(ups);
  return WithStableRows(x, [&](const at::Tensor& rows) {
    return LoraLinear(rows, weight, bias_, down, up, lora.scale);
  });
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
