#include "common/nn/attention.h"

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

// [B·S,C] -> [B,heads,S,C/heads].
at::Tensor SplitHeads(const TokenMatrix& tokens, int64_t heads) {
  return tokens.rows.view({tokens.batch, tokens.length(), heads, tokens.rows.size(1) / heads})
      .transpose(1, 2);
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
  const std::vector<at::Tensor> projected = query_.Forward(x.rows, lora);
  return Attend({projected[0], x.batch}, {{projected[1], x.batch}, {projected[2], x.batch}}, lora);
}

at::Tensor Attention::ForwardCross(const TokenMatrix& x, const KeyValue& context,
                                   const ForwardLora& lora) const {
  return Attend({query_.Forward(x.rows, lora)[0], x.batch}, context, lora);
}

KeyValue Attention::ContextKeyValue(const TokenMatrix& context, const ForwardLora& lora) const {
  const std::vector<at::Tensor> projected = key_value_.Forward(context.rows, lora);
  return {{projected[0], context.batch}, {projected[1], context.batch}};
}

at::Tensor Attention::Attend(const TokenMatrix& query, const KeyValue& context,
                             const ForwardLora& lora) const {
  const at::Tensor attended =
      at::scaled_dot_product_attention(SplitHeads(query, heads_), SplitHeads(context.key, heads_),
                                       SplitHeads(context.value, heads_));
  return out_.Forward(attended.transpose(1, 2).reshape(query.rows.sizes()), lora)[0];
}

std::vector<LoraProjection*> Attention::projections() {
  if (key_value_.layer_names().empty()) return {&query_, &out_};
  return {&query_, &key_value_, &out_};
}

}  // namespace ddpo
