#include "common/diffusion/ddim_scheduler.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

// diffusers' betas_for_alpha_bar with its cosine: β_i = 1 − f((i+1)/N) / f(i/N), at most 0.999
// (Improved DDPM, arXiv 2102.09672, Eq. 17).
at::Tensor SquaredCosineBetas(int64_t count) {
  const auto alpha_bar = [](double time) {
    const double cosine = std::cos((time + 0.008) / 1.008 * std::numbers::pi / 2);
    return cosine * cosine;
  };
  std::vector<double> betas(count);
  for (int64_t i = 0; i < count; ++i) {
    const double from = static_cast<double>(i) / static_cast<double>(count);
    const double to = static_cast<double>(i + 1) / static_cast<double>(count);
    betas[i] = std::min(1 - alpha_bar(to) / alpha_bar(from), 0.999);
  }
  return at::tensor(betas, at::kDouble).to(at::kFloat);
}

// The operations, and their number types, are diffusers': the same ᾱ to the bit.
at::Tensor Betas(const DdimConfig& config) {
  if (config.beta_schedule == "squaredcos_cap_v2") {
    return SquaredCosineBetas(config.num_train_timesteps);
  }
  if (config.beta_schedule == "scaled_linear") {
    return at::linspace(std::sqrt(config.beta_start), std::sqrt(config.beta_end),
                        config.num_train_timesteps, at::kFloat)
        .square();
  }
  return at::linspace(config.beta_start, config.beta_end, config.num_train_timesteps, at::kFloat);
}

// numpy's rounding: halves go to the even neighbour.
int64_t Round(double value) { return static_cast<int64_t>(std::nearbyint(value)); }

at::Tensor PerSample(const at::Tensor& values) { return values.view({-1, 1, 1, 1}); }

}  // namespace

absl::StatusOr<DdimScheduler> DdimScheduler::Load(const std::string& dir) {
  DDPO_ASSIGN_OR_RETURN(const DdimConfig config, ReadDdimConfig(dir + "/scheduler_config.json"));
  return DdimScheduler(config);
}

DdimScheduler::DdimScheduler(const DdimConfig& config) : config_(config) {
  const at::NoGradGuard no_grad;
  alphas_cumprod_ = (1.0 - Betas(config)).cumprod(0);
  final_alpha_cumprod_ =
      config.set_alpha_to_one ? at::ones({1}, at::kFloat) : alphas_cumprod_.slice(0, 0, 1);
}

absl::StatusOr<std::vector<int64_t>> DdimScheduler::Timesteps(int num_inference_steps) const {
  const int64_t trained = config_.num_train_timesteps;
  const int64_t count = num_inference_steps;
  if (count < 1 || count > trained) {
    return absl::InvalidArgumentError(absl::StrCat("number of denoising steps is ", count,
                                                   ", expected 1 … ", trained,
                                                   " (the scheduler's num_train_timesteps)"));
  }
  std::vector<int64_t> timesteps(count);
  if (config_.timestep_spacing == "trailing") {
    // numpy.arange(N, 0, −step) takes its increment from the first two values. For some T its last
    // value is a rounding error above 0, and numpy one value longer than T; that one is no
    // timestep.
    const double start = static_cast<double>(trained);
    const double increment = (start - start / static_cast<double>(count)) - start;
    for (int64_t i = 0; i < count; ++i) {
      timesteps[i] = Round(start + static_cast<double>(i) * increment) - 1;
    }
  } else if (config_.timestep_spacing == "linspace") {
    const double increment =
        count > 1 ? static_cast<double>(trained - 1) / static_cast<double>(count - 1) : 0;
    for (int64_t i = 0; i < count; ++i) {
      timesteps[count - 1 - i] = Round(static_cast<double>(i) * increment);
    }
  } else {
    for (int64_t i = 0; i < count; ++i) {
      timesteps[count - 1 - i] = i * (trained / count) + config_.steps_offset;
    }
  }
  if (timesteps.front() >= trained) {
    return absl::InvalidArgumentError(absl::StrCat(
        "denoising in ", count, " steps starts at timestep ", timesteps.front(),
        ", expected at most ", trained - 1, " (steps_offset is ", config_.steps_offset, ")"));
  }
  return timesteps;
}

DdimScheduler::Distribution DdimScheduler::Predict(const at::Tensor& sample,
                                                   const at::Tensor& model_output,
                                                   const at::Tensor& timesteps,
                                                   int num_inference_steps, double eta) const {
  const at::Tensor t = timesteps.cpu();
  const at::Tensor prev_t = t - config_.num_train_timesteps / num_inference_steps;
  const at::Tensor alpha_of_prev = alphas_cumprod_.index_select(0, prev_t.clamp_min(0));
  const at::Tensor alpha = alphas_cumprod_.index_select(0, t);
  const at::Tensor alpha_prev =
      eta > 0 ? alpha_of_prev : at::where(prev_t >= 0, alpha_of_prev, final_alpha_cumprod_);
  // Eq. (16) of DDIM. Coefficients are computed on the CPU in float32, as diffusers does.
  const at::Tensor variance = (1 - alpha_prev) / (1 - alpha) * (1 - alpha / alpha_prev);
  const at::Tensor std = eta * variance.sqrt();
  const auto coefficient = [&sample](const at::Tensor& values) {
    return PerSample(values.to(sample.device()));
  };
  const at::Tensor root_alpha = coefficient(alpha.sqrt());
  const at::Tensor root_beta = coefficient((1 - alpha).sqrt());
  at::Tensor original;
  at::Tensor noise;
  if (config_.prediction_type == "v_prediction") {
    original = root_alpha * sample - root_beta * model_output;
    noise = root_alpha * model_output + root_beta * sample;
  } else if (config_.prediction_type == "sample") {
    original = model_output;
    noise = (sample - root_alpha * original) / root_beta;
  } else {
    original = (sample - root_beta * model_output) / root_alpha;
    noise = model_output;
  }
  // Eq. (12) of DDIM.
  const at::Tensor direction = coefficient((1 - alpha_prev - std.square()).sqrt()) * noise;
  return {coefficient(alpha_prev.sqrt()) * original + direction, coefficient(std)};
}

namespace {

// The mean over a sample's elements of log N(value | mean, std²).
at::Tensor MeanLogDensity(const DdimScheduler::Distribution& distribution,
                          const at::Tensor& value) {
  const at::Tensor has_width = distribution.std > 0;
  const at::Tensor std = at::where(has_width, distribution.std, 1.0);
  const at::Tensor density = -(value - distribution.mean).square() / (2 * std.square()) -
                             std.log() - 0.5 * std::log(2 * std::numbers::pi);
  return at::where(has_width.view({-1}), density.mean({1, 2, 3}), 0.0);
}

}  // namespace

DdimStep DdimScheduler::Step(const at::Tensor& sample, const at::Tensor& model_output,
                             const at::Tensor& timesteps, int num_inference_steps, double eta,
                             const at::Tensor& noise) const {
  const Distribution distribution =
      Predict(sample, model_output, timesteps, num_inference_steps, eta);
  const at::Tensor prev_sample = distribution.mean + distribution.std * noise;
  return {prev_sample, MeanLogDensity(distribution, prev_sample.detach())};
}

at::Tensor DdimScheduler::LogProb(const at::Tensor& sample, const at::Tensor& model_output,
                                  const at::Tensor& timesteps, int num_inference_steps, double eta,
                                  const at::Tensor& prev_sample) const {
  return MeanLogDensity(Predict(sample, model_output, timesteps, num_inference_steps, eta),
                        prev_sample);
}

at::Tensor DdimScheduler::AddNoise(const at::Tensor& original, const at::Tensor& noise,
                                   const at::Tensor& timesteps) const {
  const at::Tensor alpha = alphas_cumprod_.index_select(0, timesteps.cpu()).to(original.device());
  return PerSample(alpha.sqrt()) * original + PerSample((1 - alpha).sqrt()) * noise;
}

at::Tensor DdimScheduler::TrainingTarget(const at::Tensor& original, const at::Tensor& noise,
                                         const at::Tensor& timesteps) const {
  if (config_.prediction_type == "epsilon") return noise;
  if (config_.prediction_type == "sample") return original;
  const at::Tensor alpha = alphas_cumprod_.index_select(0, timesteps.cpu()).to(original.device());
  return PerSample(alpha.sqrt()) * noise - PerSample((1 - alpha).sqrt()) * original;
}

}  // namespace ddpo
