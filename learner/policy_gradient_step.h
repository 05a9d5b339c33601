#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/diffusion/pipeline.h"
#include "common/nn/lora.h"
#include "learner/adamw.h"
#include "learner/gradient_workers.h"
#include "learner/objective.h"

namespace ddpo {

// The samples of one optimizer step, in the order in which they are taken. B samples, T denoising
// steps, J of them trained at. Float32 on the pipeline's device.
struct PolicyBatch {
  at::Tensor cond;            // [B,L,D]: the prompts, as Pipeline::EncodePrompts gives them
  at::Tensor uncond;          // [1,L,D]: the empty prompt
  at::Tensor latents;         // [B,T+1,C,h,w]
  at::Tensor log_probs;       // [B,T]
  at::Tensor advantages;      // [B]
  at::Tensor timestep_order;  // [B,J] int64, on the CPU: steps 0 … T−1 of each sample, in order
};

struct PolicyGradientOptions {
  ObjectiveOptions objective;
  double guidance_scale = 5.0;
  // Samples of one forward and backward pass.
  int minibatch_size = 16;
  // The gradient's norm is clipped to this.
  double max_grad_norm = 1.0;
  // Turns this rank's flat gradient [parameters] into the ranks' mean, before clipping.
  std::function<absl::Status(at::Tensor& gradient)> all_reduce;
};

// Means over the step's forward passes unless said otherwise.
struct PolicyGradientMetrics {
  double loss = 0;
  double approx_kl = 0;  // 0.5 · (log π − log π_old)²
  double clip_fraction = 0;
  double ratio_mean = 0;
  double logprob_abs_diff_max = 0;  // maximum
  double grad_norm = 0;             // of the whole gradient, before clipping
};

// One optimizer step over a whole batch, as PARITY's `policy_gradient_step`. Minibatch m holds the
// samples from m·minibatch_size on (the last may be smaller); for column j of timestep_order each
// of its samples trains at its own step; each loss is divided by (minibatches × J); the gradient's
// norm is clipped once (× max / (norm + 1e-6) where that is below 1) and AdamW steps once.
// `optimizer` must have been made for the tensors of `lora`; it changes their storage in place.
// INVALID_ARGUMENT for shapes that do not fit; INTERNAL, with nothing changed, names the minibatch
// and the column of a loss that is not finite, or the LoRA tensor of such a gradient.
absl::StatusOr<PolicyGradientMetrics> PolicyGradientStep(const Pipeline& pipeline,
                                                         const PolicyBatch& batch,
                                                         const PolicyGradientOptions& options,
                                                         GradientWorkers& workers,
                                                         const LoraWeights& lora, AdamW& optimizer);

}  // namespace ddpo
