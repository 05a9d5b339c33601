#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "common/diffusion/pipeline.h"
#include "learner/epoch_update.h"
#include "learner/policy_gradient_step.h"
#include "learner/policy_trainer.h"

namespace ddpo {

// INVALID_ARGUMENT names the task and sample whose latents or log-probabilities are not those of
// `num_steps` steps at the pipeline's latent size.
absl::Status CheckTrajectory(const Pipeline& pipeline, int64_t num_steps,
                             const TrainingSample& sample);

// [T+1,C,h,w] of a trajectory that CheckTrajectory finds in order: a view of the sample's memory.
at::Tensor Latents(const Pipeline& pipeline, int64_t num_steps, const TrainingSample& sample);

// x_0 [C,h,w] of a trajectory that CheckTrajectory finds in order: a view of the sample's memory.
at::Tensor FinalLatent(const Pipeline& pipeline, int64_t num_steps, const TrainingSample& sample);

// An epoch's samples as float32 tensors on the pipeline's device, in the samples' order.
// N samples, T denoising steps.
struct EpochTensors {
  at::Tensor cond;    // [N,L,D]
  at::Tensor uncond;  // [1,L,D]
  // N of [T+1,C,h,w] in host memory: views of the samples, which must outlive this. Trajectories
  // are the largest part by far, and are held once.
  std::vector<at::Tensor> latents;
  at::Tensor log_probs;  // [N,T]
  // [N,T]: under the policy at the start of the update; undefined but for the decoupled objective.
  at::Tensor start_log_probs;
  at::Tensor advantages;  // [N]

  // Errors are those of CheckTrajectory.
  static absl::StatusOr<EpochTensors> Create(const Pipeline& pipeline, int64_t num_steps,
                                             const EpochSamples& epoch);

  // The samples at `rows` [B] int64, in that order; timestep_order [B,J].
  PolicyBatch Take(const at::Tensor& rows, const at::Tensor& timestep_order) const;
};

}  // namespace ddpo
