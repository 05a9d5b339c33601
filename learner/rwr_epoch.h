#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "common/diffusion/pipeline.h"
#include "learner/epoch_update.h"
#include "learner/training_step.h"

namespace ddpo {

struct RwrEpochOptions {
  StepOptions step;
  // Denoising steps of the samples; only their last latent is used.
  int num_steps = 50;
  // Minibatches of one optimizer step.
  int gradient_accumulation = 1;
  // Passes over the samples.
  int inner_epochs = 5;
  // Seeds shuffles, timesteps and noise.
  uint64_t run_seed = 42;
  // This rank of the learner.
  int rank = 0;
};

// The update of reward-weighted regression, as the authors' JAX code does it: decodes each sample's
// x_0 to the image that was scored, encodes it again, and in each pass denoises it from a timestep
// and noise of its own, drawn anew. Samples of weight 0 are left out.
//
// A pass takes ⌈kept samples / step size⌉ optimizer steps, where both numbers are means over the
// ranks, of as equal sizes as possible: every rank takes the same number of steps, and every kept
// sample counts alike.
class RwrEpoch : public EpochUpdate {
 public:
  // The pipeline must outlive it.
  RwrEpoch(const RwrEpochOptions& options, const Pipeline& pipeline)
      : options_(options), pipeline_(pipeline) {}

  absl::StatusOr<UpdateMetrics> Run(const EpochSamples& samples, GradientWorkers& workers,
                                    TrainablePolicy& policy) const override;

 private:
  // The mean over the ranks of a count.
  absl::StatusOr<double> MeanOverRanks(int64_t count) const;

  const RwrEpochOptions options_;
  const Pipeline& pipeline_;
};

}  // namespace ddpo
