#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/diffusion/ddim_scheduler.h"

namespace ddpo {

// What one forward and backward pass learns from: B samples, each at a timestep of its own.
struct TrainingUnit {
  at::Tensor latents;    // x_t [B,C,h,w]
  at::Tensor timesteps;  // t [B] int64
  at::Tensor uncond;     // [B,L,D]
  at::Tensor cond;       // [B,L,D]
  // [B,C,h,w]: what the prediction is held against; the trajectory's x_{t−1} for policy gradients.
  at::Tensor target;
  at::Tensor weights;    // [B]: advantages for policy gradients
  at::Tensor log_probs;  // [B]: of `target` under the policy that sampled it
  // [B]: the same under the policy at the start of the update, for the decoupled objective.
  at::Tensor start_log_probs;
  // [B,C,h,w]: the base model's output, for objectives that ask for it.
  at::Tensor reference_output;
};

// A unit's loss, and what is reported about it.
struct UnitLoss {
  at::Tensor loss;           // scalar, differentiable
  at::Tensor log_ratio;      // [B], detached: log π − log π_old; undefined where there is none
  double clip_fraction = 0;  // of samples whose ratio left 1 ± clip_range
  double reference_kl = 0;   // mean KL divergence from the base model, where it was asked for
};

// What the policy is trained for: a loss of the guided model output. Thread-safe.
class Objective {
 public:
  virtual ~Objective() = default;

  // model_output [B,C,h,w] float32 at (unit.latents, unit.timesteps), differentiable.
  virtual UnitLoss Loss(const TrainingUnit& unit, const at::Tensor& model_output) const = 0;

  // Whether Loss is to be given the base model's output.
  virtual bool NeedsReference() const { return false; }
};

struct ObjectiveOptions {
  // ddpo_is, ddpo_sf, rwr or rwr_sparse; the last two differ in the samples' weights alone.
  std::string name = "ddpo_is";
  // The denoising whose steps are learnt from.
  int num_steps = 50;
  double eta = 1.0;
  // The ratio π / π_old is clipped to 1 ± this.
  double clip_range = 1e-4;
  // Advantages are clamped to ± this.
  double adv_clip = 5.0;
  // ddpo_is, ddpo_sf: weight of the KL divergence from the base model; 0: none.
  double kl_coefficient = 0;
  // ddpo_is: clips the ratio to the policy at the start of the update, and weighs it by that
  // policy's probability over the sampling policy's, at most max_behaviour_weight.
  bool decoupled = false;
  double max_behaviour_weight = 2;
};

// The scheduler must outlive the objective. INVALID_ARGUMENT for an unknown name.
absl::StatusOr<std::unique_ptr<Objective>> CreateObjective(const ObjectiveOptions& options,
                                                           const DdimScheduler& scheduler);

}  // namespace ddpo
