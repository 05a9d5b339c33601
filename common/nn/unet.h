#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/nn/lora.h"

namespace ddpo {

// Where a network's frozen weights live and which number type holds them and computes.
struct NetworkOptions {
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
};

// diffusers' UNet2DConditionModel for the SD 1.x family.
class UNet {
 public:
  // Loads a folder with config.json and diffusion_pytorch_model.safetensors (or its sharded index).
  // INVALID_ARGUMENT names the file, the key and both shapes for anything that does not fit.
  static absl::StatusOr<std::unique_ptr<UNet>> Load(const std::string& dir,
                                                    const NetworkOptions& options);
  ~UNet();

  // sample [B,C,h,w] float32, timesteps [B] int64, encoder_hidden_states [B,L,D] -> ε [B,C,h,w]
  // float32. With a LoRA set, its tensors take part in autograd if they require gradients. Safe to
  // call from several threads at once, each with a LoRA of its own.
  at::Tensor Forward(const at::Tensor& sample, const at::Tensor& timesteps,
                     const at::Tensor& encoder_hidden_states, const LoraWeights* lora) const;

  // Adds (sign = 1) or takes away the LoRA's product to or from the base weights. The base weights
  // are kept, so merging and unmerging any number of times leaves them as they were.
  absl::Status MergeLora(const LoraWeights& lora);
  void UnmergeLora();

  // Prefixes of the projections that LoRA adapts, in key order, as in
  // `unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v`, with their (in, out) sizes.
  struct LoraTarget {
    std::string prefix;
    int64_t in_features;
    int64_t out_features;
  };
  const std::vector<LoraTarget>& lora_targets() const;
  int64_t in_channels() const;
  int64_t sample_size() const;
  int64_t cross_attention_dim() const;

 private:
  struct Impl;
  explicit UNet(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ddpo
