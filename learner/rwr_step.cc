#include "learner/rwr_step.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "learner/rwr.h"

namespace ddpo {
namespace {

absl::Status CheckBatch(const Pipeline& pipeline, const RwrBatch& batch, double samples,
                        int minibatch_size) {
  const auto fault = [](const auto&... parts) {
    return absl::InvalidArgumentError(absl::StrCat("RWR step: ", parts...));
  };
  if (minibatch_size < 1 || !(samples > 0)) {
    return fault("minibatch_size is ", minibatch_size, " and the loss is divided by ", samples,
                 ", expected at least 1 and more than 0");
  }
  const int64_t count = batch.latents.size(0);
  if (batch.latents.dim() != 4 || batch.noise.sizes() != batch.latents.sizes() ||
      batch.cond.dim() != 3 || batch.cond.size(0) != count || batch.timesteps.dim() != 1 ||
      batch.timesteps.size(0) != count || batch.weights.dim() != 1 ||
      batch.weights.size(0) != count) {
    return fault("latents and noise are not [B,C,h,w], cond [B,L,D], timesteps and weights [B] of ",
                 "one B, ", count);
  }
  const int64_t trained = pipeline.scheduler().num_train_timesteps();
  if (count > 0 && (batch.timesteps.min().item<int64_t>() < 0 ||
                    batch.timesteps.max().item<int64_t>() >= trained)) {
    return fault("timesteps are ", batch.timesteps.min().item<int64_t>(), " … ",
                 batch.timesteps.max().item<int64_t>(), ", expected 0 … ", trained - 1);
  }
  return absl::OkStatus();
}

}  // namespace

Vae::Posterior EncodeImages(const Pipeline& pipeline, const at::Tensor& images,
                            int minibatch_size) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> means, logvars;
  for (const at::Tensor& minibatch : images.split(minibatch_size)) {
    const at::Tensor pixels = minibatch.permute({0, 3, 1, 2}).to(at::kFloat).div(255).mul(2).sub(1);
    Vae::Posterior posterior = pipeline.vae().Encode(pixels);
    means.push_back(std::move(posterior.mean));
    logvars.push_back(std::move(posterior.logvar));
  }
  return {at::cat(means), at::cat(logvars)};
}

at::Tensor PosteriorSample(const Pipeline& pipeline, const Vae::Posterior& posterior,
                           const at::Tensor& noise) {
  return (posterior.mean + (0.5 * posterior.logvar).exp() * noise) *
         pipeline.vae().scaling_factor();
}

absl::StatusOr<StepMetrics> RwrStep(const Pipeline& pipeline, const RwrBatch& batch, double samples,
                                    const StepOptions& options, GradientWorkers& workers,
                                    TrainablePolicy& policy) {
  if (absl::Status fits = CheckBatch(pipeline, batch, samples, options.minibatch_size);
      !fits.ok()) {
    return fits;
  }
  const DdimScheduler& scheduler = pipeline.scheduler();
  const int64_t count = batch.latents.size(0);
  const auto begin = [&](int64_t unit) { return unit * options.minibatch_size; };
  const auto end = [&](int64_t unit) { return std::min(begin(unit + 1), count); };
  StepUnits units;
  units.count = (count + options.minibatch_size - 1) / options.minibatch_size;
  units.get = [&](int64_t unit) {
    const auto rows = [&](const at::Tensor& tensor) {
      return tensor.slice(0, begin(unit), end(unit));
    };
    TrainingUnit result;
    result.timesteps = rows(batch.timesteps);
    result.latents = scheduler.AddNoise(rows(batch.latents), rows(batch.noise), result.timesteps);
    result.target =
        scheduler.TrainingTarget(rows(batch.latents), rows(batch.noise), result.timesteps);
    result.weights = rows(batch.weights);
    result.cond = rows(batch.cond);
    result.uncond = batch.uncond.expand_as(result.cond);
    return result;
  };
  units.share = [&](int64_t unit) {
    return static_cast<double>(end(unit) - begin(unit)) / samples;
  };
  units.name = [&](int64_t unit) {
    return absl::StrCat("minibatch ", unit, " (samples ", begin(unit), " … ", end(unit) - 1, ")");
  };
  return TrainingStep(pipeline, RwrObjective(), units, options, workers, policy);
}

}  // namespace ddpo
