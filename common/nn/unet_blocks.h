#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/nn/blocks.h"
#include "common/nn/transformer2d.h"
#include "common/nn/unet_config.h"
#include "common/nn/weights.h"

namespace ddpo {

// What every block of a UNet is given besides its input.
struct UNetContext {
  at::Tensor time_embedding;       // [B,E], after its SiLU
  const KeyValue* text = nullptr;  // keys and values of the transformer blocks, in running order
  std::shared_ptr<const ForwardLora> lora;
  // Keeps each ResNet's and each Transformer2D's inputs for the backward pass instead of all that
  // they compute.
  bool recompute = false;
  std::vector<at::Tensor> weights;  // the UNet's own that are trained
};

// One level of a UNet on the way down, in the middle or on the way up: ResNets, each followed by a
// Transformer2D or none, then perhaps a change of resolution. diffusers' DownBlock2D,
// CrossAttnDownBlock2D, UNetMidBlock2DCrossAttn (which begins with a ResNet of its own),
// UNetMidBlock2D, UpBlock2D and CrossAttnUpBlock2D.
class UNetBlock {
 public:
  static absl::StatusOr<UNetBlock> LoadDown(WeightLoader& loader, const UNetConfig& config,
                                            size_t level);
  static absl::StatusOr<UNetBlock> LoadMid(WeightLoader& loader, const UNetConfig& config);
  static absl::StatusOr<UNetBlock> LoadUp(WeightLoader& loader, const UNetConfig& config,
                                          size_t level);

  // Appends the output of every layer to `skips`; returns the last.
  at::Tensor ForwardDown(at::Tensor x, UNetContext& context, std::vector<at::Tensor>& skips) const;
  at::Tensor ForwardMid(at::Tensor x, UNetContext& context) const;
  // Takes as many tensors from the end of `skips` as it has layers. Where it upsamples, the output
  // has the size of the skip that is then the last.
  at::Tensor ForwardUp(at::Tensor x, UNetContext& context, std::vector<at::Tensor>& skips) const;

  std::vector<Transformer2D>& transformers() { return transformers_; }
  const std::vector<Transformer2D>& transformers() const { return transformers_; }

 private:
  at::Tensor ForwardResnet(size_t index, const at::Tensor& x, const UNetContext& context) const;
  at::Tensor ForwardLayer(size_t index, const at::Tensor& x, UNetContext& context) const;
  at::Tensor ForwardTransformer(size_t index, const at::Tensor& x, UNetContext& context) const;

  std::vector<ResnetBlock2D> resnets_;
  std::vector<Transformer2D> transformers_;  // empty in blocks without attention
  std::optional<Downsample2D> downsample_;
  std::optional<Upsample2D> upsample_;
};

}  // namespace ddpo
