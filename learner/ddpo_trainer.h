#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/diffusion/pipeline.h"
#include "learner/policy_gradient_step.h"
#include "learner/policy_trainer.h"
#include "learner/trainable_policy.h"

namespace ddpo {

struct DdpoTrainerOptions {
  // objective.num_steps and eta, and guidance_scale, are those of sampling.
  PolicyGradientOptions step;
  // Optimizer, warm-up and moving average.
  PolicyOptions policy;
  // Minibatches of one optimizer step.
  int gradient_accumulation = 1;
  // Passes over an epoch's samples.
  int inner_epochs = 1;
  // Trains on this fraction of each sample's shuffled timesteps.
  double timestep_fraction = 1.0;
  // Never trains at the last so many denoising steps.
  int skip_last_steps = 0;
  int lora_rank = 4;
  // 0 stands for lora_rank.
  double lora_alpha = 0;
  // Trains the UNet's own weights instead of a LoRA; the pipeline is in float32.
  bool full_finetuning = false;
  // Less memory, more time, the same result.
  bool gradient_checkpointing = false;
  // Backward passes side by side; the result does not depend on it.
  int parallel_backwards = 1;
  // Seeds the first LoRA weights and the shuffles.
  uint64_t run_seed = 42;
  // Trains one rank's share of each epoch's samples: which rank this is, and how the ranks'
  // gradients are averaged (RankMean), empty where there is one.
  int rank = 0;
  std::function<absl::Status(at::Tensor&)> rank_mean;
};

// The trainer of the objectives of arXiv 2305.13301, with fresh LoRA weights from the run's seed.
// INVALID_ARGUMENT for options out of range, INTERNAL where LibTorch fails.
absl::StatusOr<std::unique_ptr<PolicyTrainer>> CreateDdpoTrainer(
    const DdpoTrainerOptions& options, std::unique_ptr<Pipeline> pipeline);

}  // namespace ddpo
