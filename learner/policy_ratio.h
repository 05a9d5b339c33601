#pragma once

#include <ATen/ATen.h>

#include "common/diffusion/ddim_scheduler.h"
#include "learner/objective.h"

namespace ddpo {

// The terms that the policy gradient objectives are made of, one value a sample [B].
struct PolicyRatio {
  at::Tensor log_prob;    // log π(x_{t−1} | x_t, c), differentiable
  at::Tensor log_ratio;   // log π − log π_old, differentiable
  at::Tensor ratio;       // its exponential
  at::Tensor advantages;  // clamped to ± adv_clip
  at::Tensor
      reference_kl;  // KL(π ‖ base model), differentiable; undefined where it is not asked for

  // A UnitLoss of `loss` and, where it is asked for, the weighted divergence from the base model.
  // `clipped_ratio` is the one that the objective clips.
  UnitLoss Report(const ObjectiveOptions& options, const at::Tensor& loss,
                  const at::Tensor& clipped_ratio) const;
};

PolicyRatio ComputePolicyRatio(const ObjectiveOptions& options, const DdimScheduler& scheduler,
                               const TrainingUnit& unit, const at::Tensor& model_output);

}  // namespace ddpo
