#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace ddpo {

// One sample as the learner holds it. T steps, latent [C,h,w].
struct TrainingSample {
  std::string task_id;
  int sample_index = 0;
  std::string prompt;
  int64_t policy_version = 0;
  std::vector<float> latents;    // [T+1,C,h,w]
  std::vector<float> log_probs;  // [T]
  double reward = 0;
  std::map<std::string, double> reward_details;  // the scorer's parts, for reports
  std::map<std::string, double> actor_seconds;   // of its batch, on the first sample, for reports
};

// What one epoch's update did; averages over its backward passes unless said otherwise.
struct UpdateMetrics {
  double loss = 0;
  double approx_kl = 0;  // 0.5 · mean (log π − log π_old)²
  double clip_fraction = 0;
  double ratio_mean = 0;
  double reference_kl = 0;  // mean KL divergence from the base model, where it is asked for
  // |Δ log p| over the first pass, before any update; not a number where that says nothing of the
  // actors, as their samples are of another policy version.
  double logprob_abs_diff_max = 0;
  double grad_norm = 0;  // before clipping, mean over the optimizer steps
  int64_t optimizer_steps = 0;
  bool weights_changed = false;
};

// Owns the policy's weights and optimizer. One thread calls it.
class PolicyTrainer {
 public:
  virtual ~PolicyTrainer() = default;

  // [C,h,w] of the latents that it trains on.
  virtual std::vector<int64_t> LatentShape() const = 0;

  // One epoch's update from samples in their canonical order (task, sample index) and their
  // advantages, or what else the objective weighs them by. Shuffles follow from the run's seed and
  // the epoch alone. On an error the weights may be half-updated: load a state before going on. A
  // loss or gradient that is not finite is OUT_OF_RANGE (IsNonFinite) and names the minibatch.
  virtual absl::StatusOr<UpdateMetrics> TrainEpoch(absl::Span<const TrainingSample> samples,
                                                   absl::Span<const double> advantages,
                                                   int64_t epoch) = 0;

  // How far the samples' log-probabilities are from those that `policy`, which SerializePolicy gave
  // when they were drawn, has here: the largest difference, over a minibatch's worth of samples at
  // one denoising step each, other steps in other epochs. UNIMPLEMENTED where the objective has no
  // use for log-probabilities, and with full fine-tuning.
  virtual absl::StatusOr<double> LogProbDifference(absl::Span<const TrainingSample> samples,
                                                   const std::string& policy, int64_t epoch) {
    (void)samples, (void)policy, (void)epoch;
    return absl::UnimplementedError("this trainer has no log-probabilities");
  }

  // The policy as a safetensors file: a LoRA with PEFT's keys, or with full fine-tuning the UNet's
  // weights. OUT_OF_RANGE (IsNonFinite) if a weight is not finite.
  virtual absl::StatusOr<std::string> SerializePolicy() const = 0;
  // What the run ends with: the moving average of the weights where there is one.
  virtual absl::StatusOr<std::string> SerializeFinalPolicy() const { return SerializePolicy(); }

  // Weights, optimizer and moving average, for a checkpoint: a safetensors file.
  virtual absl::StatusOr<std::string> SerializeState() const = 0;
  // INVALID_ARGUMENT names the options in which the state's trainer differed, and tensors that do
  // not fit.
  virtual absl::Status RestoreState(const std::string& bytes) = 0;
};

}  // namespace ddpo
