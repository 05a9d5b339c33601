#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "absl/status/statusor.h"
#include "common/diffusion/pipeline.h"
#include "learner/epoch_metrics.h"
#include "learner/epoch_tensors.h"
#include "learner/epoch_update.h"
#include "learner/policy_gradient_step.h"

namespace ddpo {

struct PolicyGradientEpochOptions {
  PolicyGradientOptions step;
  // Minibatches of one optimizer step.
  int gradient_accumulation = 1;
  // Passes over the samples.
  int inner_epochs = 1;
  // Trains on this fraction of each sample's shuffled timesteps …
  double timestep_fraction = 1.0;
  // … and never at the last so many denoising steps.
  int skip_last_steps = 0;
  // Seeds the shuffles.
  uint64_t run_seed = 42;
  // This rank of the learner.
  int rank = 0;
};

// The order of one pass over N samples.
struct PassOrder {
  at::Tensor samples;    // [N] int64
  at::Tensor timesteps;  // [N,J] int64: row i holds the denoising steps of samples[i]
};

// One pass: takes an optimizer step for every minibatch_size × gradient_accumulation samples, the
// last perhaps for fewer, and adds what they did to `metrics`. Errors name the optimizer step. Of
// several ranks each passes over its own samples, as many as the others.
absl::Status PolicyGradientPass(const Pipeline& pipeline, const EpochTensors& tensors,
                                const PassOrder& order, const PolicyGradientOptions& options,
                                int gradient_accumulation, GradientWorkers& workers,
                                TrainablePolicy& policy, EpochMetrics& metrics);

// DDPO's update: in each inner epoch shuffles samples and, for each sample, timesteps, and passes
// over them.
class PolicyGradientEpoch : public EpochUpdate {
 public:
  // The pipeline must outlive it.
  PolicyGradientEpoch(const PolicyGradientEpochOptions& options, const Pipeline& pipeline)
      : options_(options), pipeline_(pipeline) {}

  absl::StatusOr<UpdateMetrics> Run(const EpochSamples& samples, GradientWorkers& workers,
                                    TrainablePolicy& policy) const override;

 private:
  // Fills in tensors.start_log_probs: those of stale samples anew, of fresh ones as sampled.
  absl::Status ComputeStartLogProbs(const EpochSamples& samples, GradientWorkers& workers,
                                    const TrainablePolicy& policy, EpochTensors& tensors) const;

  const PolicyGradientEpochOptions options_;
  const Pipeline& pipeline_;
};

}  // namespace ddpo
