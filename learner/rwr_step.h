#pragma once

#include <ATen/ATen.h>

#include "absl/status/statusor.h"
#include "common/diffusion/pipeline.h"
#include "common/nn/vae.h"
#include "learner/gradient_workers.h"
#include "learner/trainable_policy.h"
#include "learner/training_step.h"

namespace ddpo {

// The samples of one optimizer step of reward-weighted regression, in the order in which they are
// taken. Float32 on the pipeline's device. B may be 0 where other ranks have samples.
struct RwrBatch {
  at::Tensor cond;       // [B,L,D]: the prompts, as Pipeline::EncodePrompts gives them
  at::Tensor uncond;     // [1,L,D]: the empty prompt
  at::Tensor latents;    // [B,C,h,w]: x_0, times the VAE's scaling factor
  at::Tensor noise;      // [B,C,h,w]
  at::Tensor timesteps;  // [B] int64: 0 … num_train_timesteps−1
  at::Tensor weights;    // [B]
};

// The VAE's posterior of images [B,H,W,3] uint8, a minibatch at a time.
Vae::Posterior EncodeImages(const Pipeline& pipeline, const at::Tensor& images, int minibatch_size);

// A draw from the posterior with noise [B,C,h,w], times the VAE's scaling factor: RwrBatch.latents.
at::Tensor PosteriorSample(const Pipeline& pipeline, const Vae::Posterior& posterior,
                           const at::Tensor& noise);

// One optimizer step over a whole batch, as PARITY's `rwr_step`: noises x_0 at the timesteps,
// predicts with guidance, and takes Σ weight · MSE / samples for the loss. `samples` is the number
// that the sum is divided by, B where there is one rank. INVALID_ARGUMENT for shapes that do not
// fit; other errors as for TrainingStep.
absl::StatusOr<StepMetrics> RwrStep(const Pipeline& pipeline, const RwrBatch& batch, double samples,
                                    const StepOptions& options, GradientWorkers& workers,
                                    TrainablePolicy& policy);

}  // namespace ddpo
