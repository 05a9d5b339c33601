#include "common/nn/blocks.h"

#include <array>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/nn/group_norm.h"
#include "common/nn/stable_rows.h"

namespace ddpo {
namespace {

// LibTorch computes a single image up to this size with another kernel than a batch, whose bits
// differ.
constexpr int64_t kMaxAloneElements = 20480;

std::string Key(const std::string& prefix, const char* name) {
  return absl::StrCat(prefix, ".", name);
}

// A linear layer over the channels of [B,C,h,w].
at::Tensor ForwardPixels(const Linear& layer, const at::Tensor& x) {
  const at::Tensor pixels = x.permute({0, 2, 3, 1});  // a view of rows while x is channels-last
  const at::Tensor rows = layer.Forward(pixels.reshape({-1, x.size(1)}));
  return rows.view({x.size(0), x.size(2), x.size(3), -1}).permute({0, 3, 1, 2});
}

}  // namespace

absl::StatusOr<Linear> Linear::Load(WeightLoader& loader, const std::string& prefix, int64_t in,
                                    int64_t out, bool bias) {
  Linear layer;
  DDPO_ASSIGN_OR_RETURN(layer.weight_, loader.Take(Key(prefix, "weight"), {out, in}));
  if (bias) {
    DDPO_ASSIGN_OR_RETURN(layer.bias_, loader.Take(Key(prefix, "bias"), {out}));
  }
  return layer;
}

absl::StatusOr<Linear> Linear::LoadFromConv1x1(WeightLoader& loader, const std::string& prefix,
                                               int64_t in, int64_t out) {
  Linear layer;
  DDPO_ASSIGN_OR_RETURN(const at::Tensor weight,
                        loader.Take(Key(prefix, "weight"), {out, in, 1, 1}));
  layer.weight_ = weight.view({out, in});
  loader.Keep(Key(prefix, "weight"), layer.weight_);
  DDPO_ASSIGN_OR_RETURN(layer.bias_, loader.Take(Key(prefix, "bias"), {out}));
  return layer;
}

at::Tensor Linear::Forward(const at::Tensor& x) const {
  const auto product = [this](const at::Tensor& rows) { return at::linear(rows, weight_, bias_); };
  if (x.dim() == 2) return WithStableRows(x, product);
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = weight_.size(0);
  return WithStableRows(x.reshape({-1, x.size(-1)}), product).view(sizes);
}

absl::StatusOr<Conv2d> Conv2d::Load(WeightLoader& loader, const std::string& prefix, int64_t in,
                                    int64_t out, int64_t size, int64_t stride,
                                    std::optional<int64_t> padding) {
  Conv2d layer;
  layer.stride_ = stride;
  layer.padding_ = padding.value_or(size / 2);
  DDPO_ASSIGN_OR_RETURN(const at::Tensor weight,
                        loader.Take(Key(prefix, "weight"), {out, in, size, size}));
  layer.weight_ = weight.contiguous(at::MemoryFormat::ChannelsLast);
  loader.Keep(Key(prefix, "weight"), layer.weight_);
  DDPO_ASSIGN_OR_RETURN(layer.bias_, loader.Take(Key(prefix, "bias"), {out}));
  if (stride == 1 && layer.padding_ == 1 && WinogradConv::Suits(weight)) {
    layer.winograd_ = WinogradConv(weight);
  }
  return layer;
}

at::Tensor Conv2d::Forward(const at::Tensor& x, const at::Tensor& shift,
                           const at::Tensor& residual) const {
  const bool frozen = !weight_.requires_grad();
  if (winograd_.defined() && frozen && x.size(2) % 2 == 0 && x.size(3) % 2 == 0) {
    return winograd_.Forward(x, shift.defined() ? bias_ + shift : bias_, residual);
  }
  at::Tensor input = x.contiguous(at::MemoryFormat::ChannelsLast);
  const bool alone = x.size(0) == 1 && x.numel() <= kMaxAloneElements && x.is_cpu();
  if (alone) input = at::cat({input, input});
  at::Tensor output = at::conv2d(input, weight_, bias_, stride_, padding_);
  if (alone) output = output.narrow(0, 0, 1);
  if (shift.defined()) output = output + shift.unsqueeze(2).unsqueeze(3);
  return residual.defined() ? output + residual : output;
}

absl::StatusOr<GroupNorm> GroupNorm::Load(WeightLoader& loader, const std::string& prefix,
                                          int64_t channels, int64_t groups, double eps) {
  GroupNorm layer;
  layer.groups_ = groups;
  layer.eps_ = eps;
  DDPO_ASSIGN_OR_RETURN(layer.weight_, loader.Take(Key(prefix, "weight"), {channels}));
  DDPO_ASSIGN_OR_RETURN(layer.bias_, loader.Take(Key(prefix, "bias"), {channels}));
  return layer;
}

at::Tensor GroupNorm::Forward(const at::Tensor& x) const {
  return GroupNormSilu(x, groups_, weight_, bias_, eps_, /*silu=*/false);
}

at::Tensor GroupNorm::ForwardSilu(const at::Tensor& x) const {
  return GroupNormSilu(x, groups_, weight_, bias_, eps_, /*silu=*/true);
}

absl::StatusOr<LayerNorm> LayerNorm::Load(WeightLoader& loader, const std::string& prefix,
                                          int64_t channels, double eps) {
  LayerNorm layer;
  layer.eps_ = eps;
  DDPO_ASSIGN_OR_RETURN(layer.weight_, loader.Take(Key(prefix, "weight"), {channels}));
  DDPO_ASSIGN_OR_RETURN(layer.bias_, loader.Take(Key(prefix, "bias"), {channels}));
  return layer;
}

at::Tensor LayerNorm::Forward(const at::Tensor& x) const {
  return at::layer_norm(x, {x.size(-1)}, weight_, bias_, eps_);
}

absl::StatusOr<ResnetBlock2D> ResnetBlock2D::Load(WeightLoader& loader, const std::string& prefix,
                                                  const Options& options) {
  ResnetBlock2D block;
  block.output_scale_factor_ = options.output_scale_factor;
  DDPO_ASSIGN_OR_RETURN(block.norm1_,
                        GroupNorm::Load(loader, Key(prefix, "norm1"), options.in_channels,
                                        options.norm_num_groups, options.norm_eps));
  DDPO_ASSIGN_OR_RETURN(block.conv1_, Conv2d::Load(loader, Key(prefix, "conv1"),
                                                   options.in_channels, options.out_channels, 3));
  if (options.time_embedding_dim > 0) {
    DDPO_ASSIGN_OR_RETURN(block.time_projection_,
                          Linear::Load(loader, Key(prefix, "time_emb_proj"),
                                       options.time_embedding_dim, options.out_channels));
  }
  DDPO_ASSIGN_OR_RETURN(block.norm2_,
                        GroupNorm::Load(loader, Key(prefix, "norm2"), options.out_channels,
                                        options.norm_num_groups, options.norm_eps));
  DDPO_ASSIGN_OR_RETURN(block.conv2_, Conv2d::Load(loader, Key(prefix, "conv2"),
                                                   options.out_channels, options.out_channels, 3));
  if (options.in_channels != options.out_channels) {
    DDPO_ASSIGN_OR_RETURN(block.shortcut_,
                          Linear::LoadFromConv1x1(loader, Key(prefix, "conv_shortcut"),
                                                  options.in_channels, options.out_channels));
  }
  return block;
}

at::Tensor ResnetBlock2D::Forward(const at::Tensor& x, const at::Tensor& time_embedding) const {
  at::Tensor shift;
  if (time_projection_.has_value()) shift = time_projection_->Forward(time_embedding);
  const at::Tensor hidden = conv1_.Forward(norm1_.ForwardSilu(x), shift);
  const at::Tensor skip = shortcut_.has_value() ? ForwardPixels(*shortcut_, x) : x;
  const at::Tensor output = conv2_.Forward(norm2_.ForwardSilu(hidden), {}, skip);
  return output_scale_factor_ == 1.0 ? output : output / output_scale_factor_;
}

absl::StatusOr<Downsample2D> Downsample2D::Load(WeightLoader& loader, const std::string& prefix,
                                                int64_t channels, int64_t padding) {
  Downsample2D layer;
  layer.pad_by_hand_ = padding == 0;
  DDPO_ASSIGN_OR_RETURN(layer.conv_, Conv2d::Load(loader, Key(prefix, "conv"), channels, channels,
                                                  3, /*stride=*/2, padding));
  return layer;
}

at::Tensor Downsample2D::Forward(const at::Tensor& x) const {
  return conv_.Forward(pad_by_hand_ ? at::constant_pad_nd(x, {0, 1, 0, 1}) : x);
}

absl::StatusOr<Upsample2D> Upsample2D::Load(WeightLoader& loader, const std::string& prefix,
                                            int64_t channels) {
  Upsample2D layer;
  DDPO_ASSIGN_OR_RETURN(layer.conv_,
                        Conv2d::Load(loader, Key(prefix, "conv"), channels, channels, 3));
  return layer;
}

at::Tensor Upsample2D::Forward(const at::Tensor& x, at::IntArrayRef size) const {
  const std::array<int64_t, 2> twice = {2 * x.size(2), 2 * x.size(3)};
  return conv_.Forward(at::upsample_nearest2d(x, size.empty() ? at::IntArrayRef(twice) : size));
}

}  // namespace ddpo
