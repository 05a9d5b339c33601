#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace ddpo {

struct DdimStep {
  at::Tensor prev_sample;  // x_{t−1}, [B,C,h,w]
  at::Tensor log_prob;     // [B], the mean over channels, height and width
};

// diffusers' DDIMScheduler with the log-probability of its Gaussian step (Eq. 12 and 16 of DDIM,
// arXiv 2010.02502), as configured by scheduler_config.json.
class DdimScheduler {
 public:
  static absl::StatusOr<DdimScheduler> Load(const std::string& dir);

  // Timesteps of a T-step denoising, from the noisiest on.
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

 private:
  DdimScheduler() = default;

  at::Tensor alphas_cumprod_;  // [num_train_timesteps] float32
  double final_alpha_cumprod_ = 1.0;
  int64_t num_train_timesteps_ = 1000;
  int64_t steps_offset_ = 0;
  std::string timestep_spacing_;
  std::string prediction_type_;
};

}  // namespace ddpo
