#pragma once

#include <ATen/ATen.h>

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/nn/lora.h"
#include "common/nn/unet.h"
#include "common/tensors/safetensors.h"
#include "learner/adamw.h"

namespace ddpo {

struct PolicyOptions {
  AdamWOptions optimizer;
  // The learning rate rises linearly over the first so many steps.
  int warmup_steps = 0;
  // Of the weights' exponential moving average, for each step; 0: there is none.
  double ema_decay = 0;
};

// The weights that are trained, a LoRA or all of a UNet, float32, with their optimizer and moving
// average. Thread-compatible; the weights may be read by many threads between steps.
class TrainablePolicy {
 public:
  // Trains this LoRA; its tensors' storage changes in place.
  TrainablePolicy(LoraWeights lora, const PolicyOptions& options);
  // Trains the UNet's own weights in place. It outlives the policy.
  TrainablePolicy(UNet& unet, const PolicyOptions& options);

  // What UNet::Forward is given besides its own weights; null where those are trained.
  const LoraWeights* lora() const { return lora_.has_value() ? &*lora_ : nullptr; }
  // Leaves that require gradients.
  const NamedTensors& parameters() const { return parameters_; }

  // One optimizer step along a flat gradient [elements], in key order, whose norm is clipped to
  // max_grad_norm as torch.nn.utils.clip_grad_norm_ does; changes the gradient. Returns the norm
  // before clipping; OUT_OF_RANGE, with no weight changed, where that is not finite.
  absl::StatusOr<double> Step(at::Tensor& gradient, double max_grad_norm);

  // The weights as actors take them: a LoRA under PEFT's keys, or the UNet's under diffusers'.
  // OUT_OF_RANGE names a weight that is not finite.
  absl::StatusOr<std::string> SerializePolicy() const;
  // The same of the moving average, where there is one.
  absl::StatusOr<std::string> SerializeFinalPolicy() const;

  // Weights, optimizer and moving average, with `metadata` beside them.
  std::string SerializeState(const std::map<std::string, std::string>& metadata) const;
  // INVALID_ARGUMENT, with nothing changed, names a tensor that is missing or has another shape.
  absl::Status RestoreState(const NamedTensors& state);

  // Copies of the parameters, on the CPU.
  NamedTensors Copy() const;

 private:
  TrainablePolicy(std::optional<LoraWeights> lora, const UNet* unet, NamedTensors parameters,
                  const PolicyOptions& options);

  absl::StatusOr<std::string> Serialize(const NamedTensors& parameters) const;

  const PolicyOptions options_;
  const std::optional<LoraWeights> lora_;
  const UNet* const unet_;  // where its own weights are trained
  const NamedTensors parameters_;
  AdamW optimizer_;
  NamedTensors average_;  // empty where there is none
};

}  // namespace ddpo
