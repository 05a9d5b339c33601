#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/diffusion/ddim_config.h"

namespace ddpo {

struct DdimStep {
  at::Tensor prev_sample;  // x_{t−1}, [B,C,h,w]
  at::Tensor log_prob;     // [B], the mean over channels, height and width
};

// diffusers' DDIMScheduler with the log-probability of its Gaussian step (Eq. 12 and 16 of DDIM,
// arXiv 2010.02502), as configured by scheduler_config.json. Thread-safe.
//
// Two points where a step's Gaussian would have no width:
//  - `set_alpha_to_one` makes the last step's σ zero. Where η > 0 that step uses ᾱ[0] instead, as
//    ddpo-pytorch and TRL do whatever the config says; with η = 0 it is diffusers' step.
//  - A step that has σ = 0 all the same (η = 0, or t = 0 with `linspace`) chooses nothing: its
//    log-probability is the constant 0.
class DdimScheduler {
 public:
  // Reads dir/scheduler_config.json; see ReadDdimConfig for the errors.
  static absl::StatusOr<DdimScheduler> Load(const std::string& dir);
  explicit DdimScheduler(const DdimConfig& config);

  // Timesteps of a T-step denoising, from the noisiest on. INVALID_ARGUMENT for a T that is below 1
  // or above num_train_timesteps, or that puts a timestep past the last one.
  absl::StatusOr<std::vector<int64_t>> Timesteps(int num_inference_steps) const;

  // Mean and standard deviation of π(x_{t−1} | x_t): sample and model_output [B,C,h,w] float32,
  // timesteps [B] int64 (each row its own). σ comes as [B,1,1,1].
  struct Distribution {
    at::Tensor mean;
    at::Tensor std;
  };
  Distribution Predict(const at::Tensor& sample, const at::Tensor& model_output,
                       const at::Tensor& timesteps, int num_inference_steps, double eta) const;

  // x_{t−1} = μ + σ · noise and its log-probability.
  DdimStep Step(const at::Tensor& sample, const at::Tensor& model_output,
                const at::Tensor& timesteps, int num_inference_steps, double eta,
                const at::Tensor& noise) const;

  // log π(prev_sample | sample); differentiable in model_output.
  at::Tensor LogProb(const at::Tensor& sample, const at::Tensor& model_output,
                     const at::Tensor& timesteps, int num_inference_steps, double eta,
                     const at::Tensor& prev_sample) const;

  // x_t of the forward process, for RWR: √ᾱ_t x_0 + √(1−ᾱ_t) ε.
  at::Tensor AddNoise(const at::Tensor& original, const at::Tensor& noise,
                      const at::Tensor& timesteps) const;
  // What the model should put out at that x_t, by its prediction_type: ε, √ᾱ_t ε − √(1−ᾱ_t) x_0
  // (v) or x_0.
  at::Tensor TrainingTarget(const at::Tensor& original, const at::Tensor& noise,
                            const at::Tensor& timesteps) const;

  int64_t num_train_timesteps() const { return config_.num_train_timesteps; }

 private:
  DdimConfig config_;
  at::Tensor alphas_cumprod_;       // ᾱ, [num_train_timesteps] float32
  at::Tensor final_alpha_cumprod_;  // ᾱ after the last step where η = 0, [1]
};

}  // namespace ddpo
