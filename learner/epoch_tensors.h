#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/diffusion/pipeline.h"
#include "learner/policy_gradient_step.h"
#include "learner/policy_trainer.h"

namespace ddpo {

// An epoch's samples as float32 tensors on the pipeline's device, in the samples' order.
// N samples, T denoising steps.
struct EpochTensors {
  at::Tensor cond;        // [N,L,D]
  at::Tensor uncond;      // [1,L,D]
  at::Tensor latents;     // [N,T+1,C,h,w]
  at::Tensor log_probs;   // [N,T]
  at::Tensor advantages;  // [N]

  // INVALID_ARGUMENT names the task and sample whose latents or log-probabilities are not those of
  // `num_steps` steps at the pipeline's latent size.
  static absl::StatusOr<EpochTensors> Create(const Pipeline& pipeline, int64_t num_steps,
                                             absl::Span<const TrainingSample> samples,
                                             absl::Span<const double> advantages);

  // The samples at `rows` [B] int64, in that order; timestep_order [B,J].
  PolicyBatch Take(const at::Tensor& rows, const at::Tensor& timestep_order) const;
};

}  // namespace ddpo
