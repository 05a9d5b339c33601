#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/diffusion/pipeline.h"
#include "learner/gradient_workers.h"
#include "learner/objective.h"
#include "learner/trainable_policy.h"

namespace ddpo {

// What every optimizer step needs, whatever it learns from.
struct StepOptions {
  double guidance_scale = 5.0;
  // Lets no gradient through the unconditional branch.
  bool detach_unconditional = false;
  // Samples of one forward and backward pass.
  int minibatch_size = 16;
  // The gradient's norm is clipped to this.
  double max_grad_norm = 1.0;
  // Turns this rank's flat gradient [parameters] into the ranks' mean, before clipping.
  std::function<absl::Status(at::Tensor& gradient)> all_reduce;
};

// The forward and backward passes of one optimizer step. Called by several threads.
struct StepUnits {
  int64_t count = 0;
  std::function<TrainingUnit(int64_t unit)> get;
  // The part of the step's loss that the unit's loss is.
  std::function<double(int64_t unit)> share;
  // What an error message calls the unit.
  std::function<std::string(int64_t unit)> name;
};

// Means over the step's forward passes unless said otherwise.
struct StepMetrics {
  double loss = 0;       // the sum of the units' losses by their shares
  double approx_kl = 0;  // 0.5 · (log π − log π_old)²
  double clip_fraction = 0;
  double ratio_mean = 0;
  double reference_kl = 0;          // to the base model, where the objective asks for it
  double logprob_abs_diff_max = 0;  // maximum
  double grad_norm = 0;             // of the whole gradient, before clipping
};

// Sums the gradients of the units' losses by their shares, averages them over the ranks and takes
// one optimizer step. A step without units takes part with a gradient of zero.
// OUT_OF_RANGE, with nothing changed, names the unit of a loss that is not finite, or the tensor of
// such a gradient; the other ranks' step is then OUT_OF_RANGE too. After any other error this rank
// takes no part in the mean, and the others wait until it leaves the group.
absl::StatusOr<StepMetrics> TrainingStep(const Pipeline& pipeline, const Objective& objective,
                                         const StepUnits& units, const StepOptions& options,
                                         GradientWorkers& workers, TrainablePolicy& policy);

}  // namespace ddpo
