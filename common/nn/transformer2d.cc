#include "common/nn/transformer2d.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/nn/geglu.h"

namespace ddpo {
namespace {

constexpr double kLayerNormEps = 1e-5;
constexpr double kGroupNormEps = 1e-6;  // of Transformer2DModel, whatever the UNet's norm_eps
constexpr int64_t kFeedForwardFactor = 4;

}  // namespace

absl::StatusOr<TransformerBlock> TransformerBlock::Load(WeightLoader& loader,
                                                        const std::string& prefix, int64_t channels,
                                                        int64_t heads, int64_t context_dim) {
  const auto name = [&](const char* part) { return absl::StrCat(prefix, ".", part); };
  const int64_t inner = kFeedForwardFactor * channels;
  TransformerBlock block;
  DDPO_ASSIGN_OR_RETURN(block.norm1_,
                        LayerNorm::Load(loader, name("norm1"), channels, kLayerNormEps));
  DDPO_ASSIGN_OR_RETURN(block.norm2_,
                        LayerNorm::Load(loader, name("norm2"), channels, kLayerNormEps));
  DDPO_ASSIGN_OR_RETURN(block.norm3_,
                        LayerNorm::Load(loader, name("norm3"), channels, kLayerNormEps));
  DDPO_ASSIGN_OR_RETURN(block.self_attention_,
                        Attention::LoadSelf(loader, name("attn1"), channels, heads));
  DDPO_ASSIGN_OR_RETURN(block.text_attention_,
                        Attention::LoadCross(loader, name("attn2"), channels, heads, context_dim));
  DDPO_ASSIGN_OR_RETURN(block.feed_forward_in_,
                        Linear::Load(loader, name("ff.net.0.proj"), channels, 2 * inner));
  DDPO_ASSIGN_OR_RETURN(block.feed_forward_out_,
                        Linear::Load(loader, name("ff.net.2"), inner, channels));
  return block;
}

at::Tensor TransformerBlock::Forward(const TokenMatrix& x, const KeyValue& text,
                                     const ForwardLora& lora) const {
  at::Tensor rows = x.rows;
  rows = rows + self_attention_.ForwardSelf({norm1_.Forward(rows), x.batch}, lora);
  rows = rows + text_attention_.ForwardCross({norm2_.Forward(rows), x.batch}, text, lora);
  return rows + feed_forward_out_.Forward(Geglu(feed_forward_in_.Forward(norm3_.Forward(rows))));
}

absl::StatusOr<Transformer2D> Transformer2D::Load(WeightLoader& loader, const std::string& prefix,
                                                  const Sizes& sizes) {
  const int64_t channels = sizes.channels;
  Transformer2D transformer;
  DDPO_ASSIGN_OR_RETURN(transformer.norm_,
                        GroupNorm::Load(loader, absl::StrCat(prefix, ".norm"), channels,
                                        sizes.norm_num_groups, kGroupNormEps));
  for (auto [name, layer] : {std::pair("proj_in", &transformer.proj_in_),
                             std::pair("proj_out", &transformer.proj_out_)}) {
    const std::string full_name = absl::StrCat(prefix, ".", name);
    if (sizes.use_linear_projection) {
      DDPO_ASSIGN_OR_RETURN(*layer, Linear::Load(loader, full_name, channels, channels));
    } else {
      DDPO_ASSIGN_OR_RETURN(*layer, Linear::LoadFromConv1x1(loader, full_name, channels, channels));
    }
  }
  for (int64_t i = 0; i < sizes.layers; ++i) {
    DDPO_ASSIGN_OR_RETURN(
        transformer.blocks_.emplace_back(),
        TransformerBlock::Load(loader, absl::StrCat(prefix, ".transformer_blocks.", i), channels,
                               sizes.heads, sizes.context_dim));
  }
  return transformer;
}

at::Tensor Transformer2D::Forward(const at::Tensor& x, const KeyValue* text,
                                  const ForwardLora& lora) const {
  const int64_t batch = x.size(0), channels = x.size(1), height = x.size(2), width = x.size(3);
  // Views, not copies, while x is channels-last.
  const auto to_rows = [&](const at::Tensor& pixels) {
    return pixels.permute({0, 2, 3, 1}).reshape({batch * height * width, channels});
  };
  TokenMatrix tokens{proj_in_.Forward(to_rows(norm_.Forward(x))), batch};
  for (const TransformerBlock& block : blocks_) tokens.rows = block.Forward(tokens, *text++, lora);
  const at::Tensor rows = proj_out_.Forward(tokens.rows) + to_rows(x);
  return rows.view({batch, height, width, channels}).permute({0, 3, 1, 2});
}

}  // namespace ddpo
