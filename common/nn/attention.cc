#include "common/nn/attention.h"

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/nn/small_attention.h"

namespace ddpo {
namespace {

// LibTorch's attention for three matrices [B·S,C], perhaps columns of wider ones.
at::Tensor Attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                  int64_t batch, int64_t heads) {
  const auto split_heads = [&](const at::Tensor& rows) {
    return rows.view({batch, rows.size(0) / batch, heads, rows.size(1) / heads}).transpose(1, 2);
  };
  return at::scaled_dot_product_attention(split_heads(query), split_heads(key), split_heads(value))
      .transpose(1, 2)
      .reshape(query.sizes());
}

}  // namespace

absl::StatusOr<Attention> Attention::LoadSelf(WeightLoader& loader, const std::string& prefix,
                                              int64_t channels, int64_t heads) {
  Attention attention;
  attention.heads_ = heads;
  DDPO_ASSIGN_OR_RETURN(attention.query_,
                        LoraProjection::Load(loader, prefix, {"to_q", "to_k", "to_v"}, channels,
                                             channels, /*bias=*/false));
  DDPO_ASSIGN_OR_RETURN(attention.out_, LoraProjection::Load(loader, prefix, {"to_out.0"}, channels,
                                                             channels, /*bias=*/true));
  return attention;
}

absl::StatusOr<Attention> Attention::LoadCross(WeightLoader& loader, const std::string& prefix,
                                               int64_t channels, int64_t heads,
                                               int64_t context_dim) {
  Attention attention;
  attention.heads_ = heads;
  DDPO_ASSIGN_OR_RETURN(attention.query_, LoraProjection::Load(loader, prefix, {"to_q"}, channels,
                                                               channels, /*bias=*/false));
  DDPO_ASSIGN_OR_RETURN(attention.key_value_,
                        LoraProjection::Load(loader, prefix, {"to_k", "to_v"}, context_dim,
                                             channels, /*bias=*/false));
  DDPO_ASSIGN_OR_RETURN(attention.out_, LoraProjection::Load(loader, prefix, {"to_out.0"}, channels,
                                                             channels, /*bias=*/true));
  return attention;
}

at::Tensor Attention::ForwardSelf(const TokenMatrix& x, const ForwardLora& lora) const {
  const at::Tensor qkv = query_.Forward(x.rows, lora);
  const int64_t channels = query_.out_features();
  if (SuitsSmallAttention(qkv, x.length(), x.length(), channels, heads_)) {
    return out_.Forward(SmallSelfAttention(qkv, {x.batch, heads_, channels}), lora);
  }
  const std::vector<at::Tensor> parts = qkv.split(channels, 1);
  return out_.Forward(Attend(parts[0], parts[1], parts[2], x.batch, heads_), lora);
}

at::Tensor Attention::ForwardCross(const TokenMatrix& x, const KeyValue& context,
                                   const ForwardLora& lora) const {
  const at::Tensor query = query_.Forward(x.rows, lora);
  const int64_t channels = query_.out_features();
  if (SuitsSmallAttention(query, x.length(), context.length(), channels, heads_)) {
    return out_.Forward(SmallCrossAttention(query, context.rows, {x.batch, heads_, channels}),
                        lora);
  }
  const std::vector<at::Tensor> parts = context.rows.split(channels, 1);
  return out_.Forward(Attend(query, parts[0], parts[1], x.batch, heads_), lora);
}

KeyValue Attention::ContextKeyValue(const TokenMatrix& context, const ForwardLora& lora) const {
  return {key_value_.Forward(context.rows, lora), context.batch};
}

std::vector<LoraProjection*> Attention::projections() {
  if (key_value_.layer_names().empty()) return {&query_, &out_};
  return {&query_, &key_value_, &out_};
}

}  // namespace ddpo
