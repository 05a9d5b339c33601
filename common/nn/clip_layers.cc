#include "common/nn/clip_layers.h"

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace ddpo {

absl::StatusOr<ClipSizes> ReadClipSizes(const JsonConfig& config, const ClipSizes& defaults) {
  ClipSizes sizes;
  DDPO_ASSIGN_OR_RETURN(sizes.hidden, config.Int("hidden_size", defaults.hidden));
  DDPO_ASSIGN_OR_RETURN(sizes.intermediate, config.Int("intermediate_size", defaults.intermediate));
  DDPO_ASSIGN_OR_RETURN(sizes.layers, config.Int("num_hidden_layers", defaults.layers, 1, 1000));
  DDPO_ASSIGN_OR_RETURN(sizes.heads, config.Int("num_attention_heads", defaults.heads));
  DDPO_ASSIGN_OR_RETURN(sizes.layer_norm_eps, config.Number("layer_norm_eps", 1e-5));
  DDPO_ASSIGN_OR_RETURN(const std::string activation, config.String("hidden_act", "quick_gelu"));
  if (activation != "quick_gelu" && activation != "gelu") {
    return config.Error("hidden_act", "\"quick_gelu\" or \"gelu\"");
  }
  sizes.quick_gelu = activation == "quick_gelu";
  if (sizes.hidden % sizes.heads != 0) {
    return config.Error("num_attention_heads",
                        absl::StrCat("a number that divides hidden_size (", sizes.hidden, ")"));
  }
  return sizes;
}

absl::StatusOr<ClipLayer> ClipLayer::Load(WeightLoader& loader, const std::string& prefix,
                                          const ClipSizes& sizes) {
  const auto key = [&](const char* name) { return absl::StrCat(prefix, ".", name); };
  const int64_t d = sizes.hidden;
  ClipLayer layer;
  layer.heads_ = sizes.heads;
  layer.quick_gelu_ = sizes.quick_gelu;
  DDPO_ASSIGN_OR_RETURN(layer.layer_norm1_,
                        LayerNorm::Load(loader, key("layer_norm1"), d, sizes.layer_norm_eps));
  DDPO_ASSIGN_OR_RETURN(layer.layer_norm2_,
                        LayerNorm::Load(loader, key("layer_norm2"), d, sizes.layer_norm_eps));
  DDPO_ASSIGN_OR_RETURN(layer.query_, Linear::Load(loader, key("self_attn.q_proj"), d, d));
  DDPO_ASSIGN_OR_RETURN(layer.key_, Linear::Load(loader, key("self_attn.k_proj"), d, d));
  DDPO_ASSIGN_OR_RETURN(layer.value_, Linear::Load(loader, key("self_attn.v_proj"), d, d));
  DDPO_ASSIGN_OR_RETURN(layer.output_, Linear::Load(loader, key("self_attn.out_proj"), d, d));
  DDPO_ASSIGN_OR_RETURN(layer.fc1_, Linear::Load(loader, key("mlp.fc1"), d, sizes.intermediate));
  DDPO_ASSIGN_OR_RETURN(layer.fc2_, Linear::Load(loader, key("mlp.fc2"), sizes.intermediate, d));
  return layer;
}

at::Tensor ClipLayer::Forward(const at::Tensor& x, bool causal) const {
  const int64_t batch = x.size(0), length = x.size(1), hidden = x.size(2);
  const auto split_heads = [&](const at::Tensor& t) {
    return t.view({batch, length, heads_, hidden / heads_}).transpose(1, 2);
  };
  const at::Tensor normed = layer_norm1_.Forward(x);
  const at::Tensor attended = at::scaled_dot_product_attention(
      split_heads(query_.Forward(normed)), split_heads(key_.Forward(normed)),
      split_heads(value_.Forward(normed)), /*attn_mask=*/{}, /*dropout_p=*/0.0, causal);
  const at::Tensor residual =
      x + output_.Forward(attended.transpose(1, 2).reshape({batch, length, hidden}));
  const at::Tensor inner = fc1_.Forward(layer_norm2_.Forward(residual));
  const at::Tensor activated = quick_gelu_ ? inner * at::sigmoid(1.702 * inner) : at::gelu(inner);
  return residual + fc2_.Forward(activated);
}

}  // namespace ddpo
