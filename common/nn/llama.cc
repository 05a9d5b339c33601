#include "common/nn/llama.h"

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

// x [B,H,L,d] turned by angles whose cosines and sines are [B,1,L,d]; transformers' rotate_half.
at::Tensor Rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const auto halves = x.chunk(2, -1);
  return x * cos + at::cat({-halves[1], halves[0]}, -1) * sin;
}

// [B,Hkv,T,d] -> [B,H,T,d], each head `times` times in a row.
at::Tensor RepeatHeads(const at::Tensor& x, int64_t times) {
  if (times == 1) return x;
  return x.unsqueeze(2)
      .expand({x.size(0), x.size(1), times, x.size(2), x.size(3)})
      .reshape({x.size(0), x.size(1) * times, x.size(2), x.size(3)});
}

}  // namespace

absl::StatusOr<RmsNorm> RmsNorm::Load(WeightLoader& loader, const std::string& prefix,
                                      int64_t channels, double eps) {
  RmsNorm norm;
  norm.eps_ = eps;
  DDPO_ASSIGN_OR_RETURN(norm.weight_, loader.Take(absl::StrCat(prefix, ".weight"), {channels}));
  return norm;
}

at::Tensor RmsNorm::Forward(const at::Tensor& x) const {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor scale = at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps_);
  return weight_ * (wide * scale).to(x.scalar_type());
}

// What all layers share in one Forward over L tokens, T with those in the cache.
struct Llama::Step {
  at::Tensor cos, sin;  // [B,1,L,head_dim]
  at::Tensor visible;   // [B,1,L,T] bool
  int64_t start = 0;    // tokens in the cache before
};

absl::StatusOr<Llama::Layer> Llama::LoadLayer(WeightLoader& loader, const LlamaConfig& config,
                                              const std::string& prefix) {
  const auto key = [&](const char* name) { return absl::StrCat(prefix, name); };
  const int64_t d = config.hidden, inner = config.intermediate;
  const int64_t queries = config.heads * config.head_dim;
  const int64_t keys = config.key_value_heads * config.head_dim;
  const bool bias = config.attention_bias, mlp_bias = config.mlp_bias;
  Layer layer;
  DDPO_ASSIGN_OR_RETURN(layer.input_norm,
                        RmsNorm::Load(loader, key("input_layernorm"), d, config.rms_norm_eps));
  DDPO_ASSIGN_OR_RETURN(
      layer.post_attention_norm,
      RmsNorm::Load(loader, key("post_attention_layernorm"), d, config.rms_norm_eps));
  DDPO_ASSIGN_OR_RETURN(layer.query,
                        Linear::Load(loader, key("self_attn.q_proj"), d, queries, bias));
  DDPO_ASSIGN_OR_RETURN(layer.key, Linear::Load(loader, key("self_attn.k_proj"), d, keys, bias));
  DDPO_ASSIGN_OR_RETURN(layer.value, Linear::Load(loader, key("self_attn.v_proj"), d, keys, bias));
  DDPO_ASSIGN_OR_RETURN(layer.output,
                        Linear::Load(loader, key("self_attn.o_proj"), queries, d, bias));
  DDPO_ASSIGN_OR_RETURN(layer.gate, Linear::Load(loader, key("mlp.gate_proj"), d, inner, mlp_bias));
  DDPO_ASSIGN_OR_RETURN(layer.up, Linear::Load(loader, key("mlp.up_proj"), d, inner, mlp_bias));
  DDPO_ASSIGN_OR_RETURN(layer.down, Linear::Load(loader, key("mlp.down_proj"), inner, d, mlp_bias));
  // Written by transformers before 4.31; computed from the configuration.
  loader.Ignore(key("self_attn.rotary_emb.inv_freq"));
  return layer;
}

absl::StatusOr<Llama> Llama::Load(WeightLoader& loader, const LlamaConfig& config,
                                  const std::string& prefix, const std::string& head_key) {
  Llama llama;
  llama.config_ = config;
  DDPO_ASSIGN_OR_RETURN(
      llama.token_embedding_,
      loader.Take(absl::StrCat(prefix, "embed_tokens.weight"), {config.vocabulary, config.hidden}));
  llama.config_.inverse_frequencies =
      config.inverse_frequencies.to(llama.token_embedding_.device());
  for (int64_t i = 0; i < config.layers; ++i) {
    DDPO_ASSIGN_OR_RETURN(llama.layers_.emplace_back(),
                          LoadLayer(loader, config, absl::StrCat(prefix, "layers.", i, ".")));
  }
  DDPO_ASSIGN_OR_RETURN(llama.norm_, RmsNorm::Load(loader, absl::StrCat(prefix, "norm"),
                                                   config.hidden, config.rms_norm_eps));
  if (config.tie_word_embeddings) {
    loader.Ignore(head_key);
    llama.head_weight_ = llama.token_embedding_;
  } else {
    DDPO_ASSIGN_OR_RETURN(llama.head_weight_,
                          loader.Take(head_key, {config.vocabulary, config.hidden}));
  }
  return llama;
}

at::Tensor Llama::Embed(const at::Tensor& ids) const {
  return at::embedding(token_embedding_, ids.to(token_embedding_.device()));
}

at::Tensor Llama::Attend(const Layer& layer, size_t index, const at::Tensor& x, const Step& step,
                         LlamaCache* cache) const {
  const int64_t batch = x.size(0), length = x.size(1), d = config_.head_dim;
  const auto heads = [&](const at::Tensor& rows, int64_t count) {
    return rows.view({batch, length, count, d}).transpose(1, 2);
  };
  const at::Tensor queries =
      Rotate(heads(layer.query.Forward(x), config_.heads), step.cos, step.sin);
  cache->keys[index]
      .narrow(2, step.start, length)
      .copy_(Rotate(heads(layer.key.Forward(x), config_.key_value_heads), step.cos, step.sin));
  cache->values[index]
      .narrow(2, step.start, length)
      .copy_(heads(layer.value.Forward(x), config_.key_value_heads));
  const int64_t total = step.start + length, repeats = config_.heads / config_.key_value_heads;
  const at::Tensor attended = at::scaled_dot_product_attention(
      queries, RepeatHeads(cache->keys[index].narrow(2, 0, total), repeats),
      RepeatHeads(cache->values[index].narrow(2, 0, total), repeats), step.visible);
  return layer.output.Forward(attended.transpose(1, 2).reshape({batch, length, -1}));
}

at::Tensor Llama::Forward(const at::Tensor& embeddings, const at::Tensor& is_token,
                          LlamaCache* cache) const {
  const at::Device device = token_embedding_.device();
  const at::ScalarType dtype = token_embedding_.scalar_type();
  const int64_t batch = embeddings.size(0), length = embeddings.size(1);
  TORCH_CHECK(batch == cache->batch && cache->length + length <= cache->capacity, "a batch of ",
              batch, " with ", length, " tokens more; the cache is for ", cache->batch, " of ",
              cache->capacity, " and holds ", cache->length);
  if (cache->keys.empty()) {
    const auto options = at::TensorOptions().device(device);
    cache->is_token = at::zeros({batch, cache->capacity}, options.dtype(at::kBool));
    for (size_t i = 0; i < layers_.size(); ++i) {
      const std::vector<int64_t> shape = {batch, config_.key_value_heads, cache->capacity,
                                          config_.head_dim};
      cache->keys.push_back(at::empty(shape, options.dtype(dtype)));
      cache->values.push_back(at::empty(shape, options.dtype(dtype)));
    }
  }
  Step step;
  step.start = cache->length;
  const int64_t total = step.start + length;
  cache->is_token.narrow(1, step.start, length).copy_(is_token);
  const at::Tensor tokens = cache->is_token.narrow(1, 0, total);
  // Padding attends to itself, so that no row of the softmax is empty.
  const at::Tensor order = at::arange(total, device);
  const at::Tensor asking = order.narrow(0, step.start, length).unsqueeze(1);
  step.visible = (tokens.view({batch, 1, 1, total}) & (order <= asking)) | (order == asking);
  const at::Tensor positions =
      (tokens.cumsum(1) - 1).clamp_min(0).narrow(1, step.start, length).to(at::kFloat);
  const at::Tensor angles = positions.unsqueeze(2) * config_.inverse_frequencies;
  const at::Tensor both = at::cat({angles, angles}, -1).unsqueeze(1);
  step.cos = both.cos().to(dtype);
  step.sin = both.sin().to(dtype);

  at::Tensor hidden = embeddings.to(device, dtype);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    hidden = hidden + Attend(layer, i, layer.input_norm.Forward(hidden), step, cache);
    const at::Tensor normed = layer.post_attention_norm.Forward(hidden);
    hidden = hidden +
             layer.down.Forward(at::silu(layer.gate.Forward(normed)) * layer.up.Forward(normed));
  }
  cache->length = total;
  return norm_.Forward(hidden);
}

at::Tensor Llama::Logits(const at::Tensor& hidden) const {
  return at::linear(hidden, head_weight_);
}

}  // namespace ddpo
