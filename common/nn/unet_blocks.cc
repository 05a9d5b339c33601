#include "common/nn/unet_blocks.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/nn/recompute.h"

namespace ddpo {
namespace {

absl::StatusOr<ResnetBlock2D> LoadResnet(WeightLoader& loader, const UNetConfig& config,
                                         const std::string& prefix, int64_t in_channels,
                                         int64_t out_channels, double output_scale_factor) {
  return ResnetBlock2D::Load(loader, prefix,
                             {.in_channels = in_channels,
                              .out_channels = out_channels,
                              .time_embedding_dim = config.time_embedding_dim(),
                              .norm_num_groups = config.norm_num_groups,
                              .norm_eps = config.norm_eps,
                              .output_scale_factor = output_scale_factor});
}

absl::StatusOr<Transformer2D> LoadTransformer(WeightLoader& loader, const UNetConfig& config,
                                              const std::string& prefix,
                                              const UNetLevelConfig& level) {
  return Transformer2D::Load(loader, prefix,
                             {.channels = level.channels,
                              .heads = level.heads,
                              .layers = level.transformer_layers,
                              .context_dim = config.cross_attention_dim,
                              .norm_num_groups = config.norm_num_groups,
                              .use_linear_projection = config.use_linear_projection});
}

}  // namespace

absl::StatusOr<UNetBlock> UNetBlock::LoadDown(WeightLoader& loader, const UNetConfig& config,
                                              size_t level) {
  const UNetLevelConfig& sizes = config.levels[level];
  const std::string prefix = absl::StrCat("down_blocks.", level);
  int64_t in_channels = config.levels[level == 0 ? 0 : level - 1].channels;
  UNetBlock block;
  for (int64_t i = 0; i < sizes.layers; ++i) {
    DDPO_ASSIGN_OR_RETURN(block.resnets_.emplace_back(),
                          LoadResnet(loader, config, absl::StrCat(prefix, ".resnets.", i),
                                     in_channels, sizes.channels, 1.0));
    if (sizes.down_attention) {
      DDPO_ASSIGN_OR_RETURN(
          block.transformers_.emplace_back(),
          LoadTransformer(loader, config, absl::StrCat(prefix, ".attentions.", i), sizes));
    }
    in_channels = sizes.channels;
  }
  if (level + 1 < config.levels.size()) {
    DDPO_ASSIGN_OR_RETURN(block.downsample_,
                          Downsample2D::Load(loader, absl::StrCat(prefix, ".downsamplers.0"),
                                             sizes.channels, config.downsample_padding));
  }
  return block;
}

absl::StatusOr<UNetBlock> UNetBlock::LoadMid(WeightLoader& loader, const UNetConfig& config) {
  const UNetLevelConfig& sizes = config.levels.back();
  UNetBlock block;
  for (int i = 0; i < (config.mid_block_attention ? 2 : 1); ++i) {
    DDPO_ASSIGN_OR_RETURN(
        block.resnets_.emplace_back(),
        LoadResnet(loader, config, absl::StrCat("mid_block.resnets.", i), sizes.channels,
                   sizes.channels, config.mid_block_scale_factor));
  }
  if (config.mid_block_attention) {
    DDPO_ASSIGN_OR_RETURN(block.transformers_.emplace_back(),
                          LoadTransformer(loader, config, "mid_block.attentions.0", sizes));
  }
  return block;
}

absl::StatusOr<UNetBlock> UNetBlock::LoadUp(WeightLoader& loader, const UNetConfig& config,
                                            size_t level) {
  const UNetLevelConfig& sizes = config.levels[level];
  // diffusers counts the way up from the lowest level.
  const std::string prefix = absl::StrCat("up_blocks.", config.levels.size() - 1 - level);
  const size_t below = std::min(level + 1, config.levels.size() - 1);
  int64_t in_channels = config.levels[below].channels;
  UNetBlock block;
  for (int64_t i = 0; i <= sizes.layers; ++i) {
    // The last layer's skip comes from the level above: its downsampled output, or conv_in's.
    const size_t skip_level = i == sizes.layers && level > 0 ? level - 1 : level;
    DDPO_ASSIGN_OR_RETURN(
        block.resnets_.emplace_back(),
        LoadResnet(loader, config, absl::StrCat(prefix, ".resnets.", i),
                   in_channels + config.levels[skip_level].channels, sizes.channels, 1.0));
    if (sizes.up_attention) {
      DDPO_ASSIGN_OR_RETURN(
          block.transformers_.emplace_back(),
          LoadTransformer(loader, config, absl::StrCat(prefix, ".attentions.", i), sizes));
    }
    in_channels = sizes.channels;
  }
  if (level > 0) {
    DDPO_ASSIGN_OR_RETURN(
        block.upsample_,
        Upsample2D::Load(loader, absl::StrCat(prefix, ".upsamplers.0"), sizes.channels));
  }
  return block;
}

at::Tensor UNetBlock::ForwardResnet(size_t index, const at::Tensor& x,
                                    const UNetContext& context) const {
  const ResnetBlock2D& resnet = resnets_[index];
  // The ResNet uses x twice and a skip connection once more: through the alias the ResNet's two
  // gradients are added up first, as where it is recomputed.
  if (!context.recompute) return resnet.Forward(at::alias(x), context.time_embedding);
  return Recompute({x, context.time_embedding}, context.weights,
                   [&resnet](const std::vector<at::Tensor>& inputs) {
                     return resnet.Forward(inputs[0], inputs[1]);
                   });
}

at::Tensor UNetBlock::ForwardLayer(size_t index, const at::Tensor& x, UNetContext& context) const {
  at::Tensor hidden = ForwardResnet(index, x, context);
  if (transformers_.empty()) return hidden;
  return ForwardTransformer(index, hidden, context);
}

at::Tensor UNetBlock::ForwardTransformer(size_t index, const at::Tensor& x,
                                         UNetContext& context) const {
  const KeyValue* text = context.text;
  const Transformer2D& transformer = transformers_[index];
  const size_t blocks = transformer.blocks().size();
  context.text += blocks;
  if (!context.recompute) return transformer.Forward(x, text, *context.lora);
  std::vector<at::Tensor> inputs = {x};
  for (size_t i = 0; i < blocks; ++i) inputs.push_back(text[i].rows);
  std::vector<at::Tensor> parameters = context.weights;
  for (const LoraPair& pair : context.lora->pairs) {
    parameters.insert(parameters.end(), {pair.a, pair.b});
  }
  return Recompute(inputs, parameters,
                   [&transformer, lora = context.lora,
                    batch = x.size(0)](const std::vector<at::Tensor>& tensors) {
                     std::vector<KeyValue> key_values;
                     for (size_t i = 1; i < tensors.size(); ++i) {
                       key_values.push_back({tensors[i], batch});
                     }
                     return transformer.Forward(tensors[0], key_values.data(), *lora);
                   });
}

at::Tensor UNetBlock::ForwardDown(at::Tensor x, UNetContext& context,
                                  std::vector<at::Tensor>& skips) const {
  for (size_t i = 0; i < resnets_.size(); ++i) {
    x = ForwardLayer(i, x, context);
    skips.push_back(x);
  }
  if (downsample_.has_value()) {
    x = downsample_->Forward(x);
    skips.push_back(x);
  }
  return x;
}

at::Tensor UNetBlock::ForwardMid(at::Tensor x, UNetContext& context) const {
  x = ForwardResnet(0, x, context);
  for (size_t i = 0; i < transformers_.size(); ++i) {
    x = ForwardTransformer(i, x, context);
    x = ForwardResnet(i + 1, x, context);
  }
  return x;
}

at::Tensor UNetBlock::ForwardUp(at::Tensor x, UNetContext& context,
                                std::vector<at::Tensor>& skips) const {
  for (size_t i = 0; i < resnets_.size(); ++i) {
    x = ForwardLayer(i, at::cat({x, skips.back()}, 1), context);
    skips.pop_back();
  }
  if (upsample_.has_value()) {
    x = upsample_->Forward(x, {skips.back().size(2), skips.back().size(3)});
  }
  return x;
}

}  // namespace ddpo
