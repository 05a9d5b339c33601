#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/nn/lora.h"
#include "common/nn/network_options.h"

namespace ddpo {

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
  // call from several threads at once, each with a LoRA of its own. A row's result does not depend
  // on the other rows, nor on whether gradients are recorded. Throws c10::Error for inputs and
  // LoRA weights whose shapes do not fit.
  at::Tensor Forward(const at::Tensor& sample, const at::Tensor& timesteps,
                     const at::Tensor& encoder_hidden_states, const LoraWeights* lora) const;

  // The part of Forward that depends on the text and the LoRA alone: keys and values of every
  // attention to the text. A denoising at fixed weights computes them once for all its steps.
  class TextKeyValues;
  std::shared_ptr<const TextKeyValues> PrepareText(const at::Tensor& encoder_hidden_states,
                                                   const LoraWeights* lora) const;
  // The same bits as Forward with the hidden states; `lora` must be the one of PrepareText.
  at::Tensor Forward(const at::Tensor& sample, const at::Tensor& timesteps,
                     const TextKeyValues& text, const LoraWeights* lora) const;

  // Adds the LoRA's product to the weights that Forward uses, until UnmergeLora. The base weights
  // are kept, so merging and unmerging any number of times leaves them as they were. Not while
  // another thread is in Forward. A LoRA of another shape is INVALID_ARGUMENT.
  absl::Status MergeLora(const LoraWeights& lora);
  void UnmergeLora();

  // Turns the weights into leaves of autograd and returns them, float32; some hold several of
  // diffusers' tensors. Forward then takes kernels that are differentiable in them, and differs by
  // rounding errors from that of a frozen UNet. Call once, on a UNet loaded in float32.
  NamedTensors MakeTrainable();
  // Tensors of MakeTrainable's names and shapes under diffusers' keys, in diffusers' shapes.
  NamedTensors Weights(const NamedTensors& trainable) const;
  // Takes up weights under diffusers' keys; on an error, as those of Load, the old ones stay. Not
  // while another thread is in Forward, nor after MakeTrainable.
  absl::Status SetWeights(NamedTensors weights);

  // Whether backward passes compute activations again instead of keeping them: less memory, more
  // time, the same gradients.
  void set_gradient_checkpointing(bool on);

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
  at::Device device() const;

 private:
  struct Impl;
  explicit UNet(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// A policy that is a whole UNet, as a safetensors file: weights under diffusers' keys, told from a
// LoRA by its metadata or, as in files of other programs, by conv_in.weight among its tensors.
std::string SerializeUNetWeights(const NamedTensors& weights);
bool IsUNetWeights(const SafetensorsContents& contents);

}  // namespace ddpo
