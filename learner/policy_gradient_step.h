#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "absl/status/statusor.h"
#include "common/diffusion/pipeline.h"
#include "learner/gradient_workers.h"
#include "learner/objective.h"
#include "learner/trainable_policy.h"
#include "learner/training_step.h"

namespace ddpo {

// The samples of one optimizer step, in the order in which they are taken. B samples, T denoising
// steps, J of them trained at. Float32 on the pipeline's device.
struct PolicyBatch {
  at::Tensor cond;    // [B,L,D]: the prompts, as Pipeline::EncodePrompts gives them
  at::Tensor uncond;  // [1,L,D]: the empty prompt
  // B of [T+1,C,h,w], on any device: each backward pass takes over the few that it needs.
  std::vector<at::Tensor> latents;
  at::Tensor log_probs;  // [B,T]
  // [B,T]: log-probabilities under the policy at the start of the update; for the decoupled
  // objective alone.
  at::Tensor start_log_probs;
  at::Tensor advantages;      // [B]
  at::Tensor timestep_order;  // [B,J] int64, on the CPU: steps 0 … T−1 of each sample, in order
};

struct PolicyGradientOptions : StepOptions {
  ObjectiveOptions objective;
};

// One optimizer step over a whole batch, as PARITY's `policy_gradient_step`. Minibatch m holds the
// samples from m·minibatch_size on (the last may be smaller); for column j of timestep_order each
// of its samples trains at its own step; each loss is divided by (minibatches × J); the gradient's
// norm is clipped once (× max / (norm + 1e-6) where that is below 1) and AdamW steps once.
// INVALID_ARGUMENT for shapes that do not fit; OUT_OF_RANGE, with nothing changed, names the
// minibatch and the column of a loss that is not finite, or the tensor of such a gradient.
absl::StatusOr<StepMetrics> PolicyGradientStep(const Pipeline& pipeline, const PolicyBatch& batch,
                                               const PolicyGradientOptions& options,
                                               GradientWorkers& workers, TrainablePolicy& policy);

// log π(x_{t−1} | x_t, c) of every step of the batch's timestep_order, [B,J], without gradients:
// column j holds those of timestep_order's column j. Errors as for PolicyGradientStep.
absl::StatusOr<at::Tensor> BatchLogProbs(const Pipeline& pipeline, const PolicyBatch& batch,
                                         const PolicyGradientOptions& options,
                                         GradientWorkers& workers, const LoraWeights* lora);

}  // namespace ddpo
