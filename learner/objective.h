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
};

// A unit's loss, and what is reported about it.
struct UnitLoss {
  at::Tensor loss;           // scalar, differentiable
  at::Tensor log_ratio;      // [B], detached: log π − log π_old
  double clip_fraction = 0;  // of samples whose ratio left 1 ± clip_range
};

// What the policy is trained for: a loss of the guided model output. Thread-safe.
class Objective {
 public:
  virtual ~Objective() = default;

  // model_output [B,C,h,w] float32 at (unit.latents, unit.timesteps), differentiable.
  virtual UnitLoss Loss(const TrainingUnit& unit, const at::Tensor& model_output) const = 0;
};

struct ObjectiveOptions {
  // ddpo_is or ddpo_sf.
  std::string name = "ddpo_is";
  // The denoising whose steps are learnt from.
  int num_steps = 50;
  double eta = 1.0;
  // The ratio π / π_old is clipped to 1 ± this.
  double clip_range = 1e-4;
  // Advantages are clamped to ± this.
  double adv_clip = 5.0;
};

// The scheduler must outlive the objective. INVALID_ARGUMENT for an unknown name.
absl::StatusOr<std::unique_ptr<Objective>> CreateObjective(const ObjectiveOptions& options,
                                                           const DdimScheduler& scheduler);

}  // namespace ddpo
