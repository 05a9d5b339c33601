#include "learner/rwr_epoch.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/random.h"
#include "common/base/status_macros.h"
#include "learner/epoch_metrics.h"
#include "learner/epoch_tensors.h"
#include "learner/rwr_step.h"
#include "learner/shuffle.h"

namespace ddpo {
namespace {

// What one pass draws for one sample, from a generator of its own: it does not depend on the other
// samples, nor on the rank that has it.
struct SampleDraws {
  at::Tensor posterior_noise;  // [C,h,w]
  at::Tensor noise;            // [C,h,w]
  at::Tensor timestep;         // [] int64
};

SampleDraws Draw(const ShuffleKey& key, const TrainingSample& sample, at::IntArrayRef shape,
                 int64_t num_train_timesteps) {
  const uint64_t seed =
      DeriveSeed(key.run_seed, absl::StrCat("RWR of ", sample.task_id, " ", sample.sample_index),
                 static_cast<uint64_t>(key.epoch), static_cast<uint64_t>(key.inner_epoch));
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  SampleDraws draws;
  draws.posterior_noise = at::randn(shape, generator, at::kFloat);
  draws.noise = at::randn(shape, generator, at::kFloat);
  draws.timestep = at::randint(num_train_timesteps, {}, generator, at::kLong);
  return draws;
}

// An epoch's kept samples, on the pipeline's device. K samples.
struct KeptSamples {
  std::vector<const TrainingSample*> samples;
  at::Tensor cond;           // [K,L,D]
  at::Tensor uncond;         // [1,L,D]
  at::Tensor weights;        // [K]
  Vae::Posterior posterior;  // of their images
};

absl::StatusOr<KeptSamples> Keep(const Pipeline& pipeline, const EpochSamples& epoch, int num_steps,
                                 int minibatch_size) {
  KeptSamples kept;
  std::vector<at::Tensor> final_latents;
  std::vector<std::string> prompts;
  std::vector<double> weights;
  for (size_t i = 0; i < epoch.samples.size(); ++i) {
    if (epoch.weights[i] == 0) continue;
    const TrainingSample& sample = epoch.samples[i];
    DDPO_RETURN_IF_ERROR(CheckTrajectory(pipeline, num_steps, sample));
    final_latents.push_back(FinalLatent(pipeline, num_steps, sample));
    prompts.push_back(sample.prompt);
    weights.push_back(epoch.weights[i]);
    kept.samples.push_back(&sample);
  }
  kept.uncond = pipeline.EncodePrompts({""});
  if (kept.samples.empty()) return kept;
  kept.cond = pipeline.EncodePrompts(prompts);
  const at::Device device = kept.uncond.device();
  kept.weights = at::tensor(weights, at::kDouble).to(device, at::kFloat);
  std::vector<at::Tensor> images;
  for (const at::Tensor& latents : at::stack(final_latents).split(minibatch_size)) {
    images.push_back(pipeline.DecodeImages(latents.to(device)));
  }
  kept.posterior = EncodeImages(pipeline, at::cat(images), minibatch_size);
  return kept;
}

RwrBatch Take(const Pipeline& pipeline, const KeptSamples& kept, const ShuffleKey& key,
              at::ArrayRef<int64_t> order) {
  const at::NoGradGuard no_grad;
  const at::Device device = kept.uncond.device();
  RwrBatch batch;
  batch.uncond = kept.uncond;
  if (order.empty()) {
    const int64_t size = pipeline.unet().sample_size();
    batch.cond = kept.uncond.slice(0, 0, 0);
    batch.latents = batch.noise = at::empty({0, pipeline.unet().in_channels(), size, size}, device);
    batch.timesteps = at::empty({0}, at::TensorOptions(at::kLong).device(device));
    batch.weights = at::empty({0}, device);
    return batch;
  }
  const at::Tensor rows = at::tensor(order, at::kLong).to(device);
  const Vae::Posterior posterior{kept.posterior.mean.index_select(0, rows),
                                 kept.posterior.logvar.index_select(0, rows)};
  std::vector<at::Tensor> posterior_noise, noise, timesteps;
  for (const int64_t row : order) {
    SampleDraws draws = Draw(key, *kept.samples[row], kept.posterior.mean[row].sizes(),
                             pipeline.scheduler().num_train_timesteps());
    posterior_noise.push_back(std::move(draws.posterior_noise));
    noise.push_back(std::move(draws.noise));
    timesteps.push_back(std::move(draws.timestep));
  }
  batch.cond = kept.cond.index_select(0, rows);
  batch.weights = kept.weights.index_select(0, rows);
  batch.latents = PosteriorSample(pipeline, posterior, at::stack(posterior_noise).to(device));
  batch.noise = at::stack(noise).to(device);
  batch.timesteps = at::stack(timesteps).to(device);
  return batch;
}

}  // namespace

absl::StatusOr<double> RwrEpoch::MeanOverRanks(int64_t count) const {
  if (!options_.step.all_reduce) return static_cast<double>(count);
  at::Tensor value = at::full({1}, static_cast<double>(count),
                              at::TensorOptions(at::kFloat).device(pipeline_.unet().device()));
  DDPO_RETURN_IF_ERROR(options_.step.all_reduce(value));
  return value.item<double>();
}

absl::StatusOr<UpdateMetrics> RwrEpoch::Run(const EpochSamples& samples, GradientWorkers& workers,
                                            TrainablePolicy& policy) const {
  DDPO_ASSIGN_OR_RETURN(const KeptSamples kept,
                        Keep(pipeline_, samples, options_.num_steps, options_.step.minibatch_size));
  const auto count = static_cast<int64_t>(kept.samples.size());
  DDPO_ASSIGN_OR_RETURN(const double mean_count, MeanOverRanks(count));
  if (!(mean_count > 0)) {
    return absl::InvalidArgumentError("RWR: no sample has a weight above 0");
  }
  const double step_size =
      static_cast<double>(options_.step.minibatch_size) * options_.gradient_accumulation;
  const auto steps = static_cast<int64_t>(std::ceil(mean_count / step_size));
  EpochMetrics metrics;
  for (int inner = 0; inner < options_.inner_epochs; ++inner) {
    const ShuffleKey key{options_.run_seed, samples.epoch, inner, options_.rank};
    const std::vector<int64_t> order = ShuffleSamples(key, count);
    for (int64_t step = 0; step < steps; ++step) {
      const int64_t begin = count * step / steps, end = count * (step + 1) / steps;
      const RwrBatch batch =
          Take(pipeline_, kept, key, at::ArrayRef<int64_t>(order).slice(begin, end - begin));
      const absl::StatusOr<StepMetrics> result =
          RwrStep(pipeline_, batch, mean_count / static_cast<double>(steps), options_.step, workers,
                  policy);
      if (!result.ok()) {
        return absl::Status(result.status().code(),
                            absl::StrCat("inner epoch ", inner, ", optimizer step ", step, ": ",
                                         result.status().message()));
      }
      metrics.Add(*result, 1);
    }
  }
  return metrics.Mean();
}

}  // namespace ddpo
