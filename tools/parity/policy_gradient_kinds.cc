#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/nn/lora.h"
#include "learner/advantages.h"
#include "learner/epoch_metrics.h"
#include "learner/epoch_tensors.h"
#include "learner/policy_gradient_epoch.h"
#include "learner/policy_gradient_step.h"
#include "learner/rwr_step.h"
#include "learner/trainable_policy.h"
#include "tools/parity/kinds.h"
#include "tools/parity/training_options.h"

namespace ddpo {
namespace {

absl::StatusOr<NamedTensors> PolicyGradient(const Fixture& fixture, ParityModel& model) {
  DDPO_ASSIGN_OR_RETURN(const Pipeline* pipeline, model.pipeline());
  DDPO_ASSIGN_OR_RETURN(PolicyGradientOptions options, ReadPolicyGradientOptions(fixture));
  DDPO_ASSIGN_OR_RETURN(AdamWOptions optimizer_options, ReadOptimizerOptions(fixture));
  DDPO_ASSIGN_OR_RETURN(std::vector<std::string> prompts, fixture.Strings("prompts"));
  DDPO_ASSIGN_OR_RETURN(LoraWeights lora, ReadStartLora(fixture, *pipeline));

  PolicyBatch batch;
  DDPO_ASSIGN_OR_RETURN(const at::Tensor latents, fixture.Floats("latents", 5));
  batch.latents = latents.unbind(0);
  DDPO_ASSIGN_OR_RETURN(batch.log_probs, fixture.Floats("log_probs", 2));
  DDPO_ASSIGN_OR_RETURN(batch.advantages, fixture.Floats("advantages", 1));
  DDPO_ASSIGN_OR_RETURN(batch.timestep_order, fixture.Integers("timestep_order", 2));
  batch.cond = pipeline->EncodePrompts(prompts);
  batch.uncond = pipeline->EncodePrompts({""});
  const at::Device device = model.options().device;
  batch.log_probs = batch.log_probs.to(device);
  batch.advantages = batch.advantages.to(device);

  TrainablePolicy policy(std::move(lora), {.optimizer = optimizer_options});
  GradientWorkers workers(1);
  DDPO_ASSIGN_OR_RETURN(StepMetrics metrics,
                        PolicyGradientStep(*pipeline, batch, options, workers, policy));

  NamedTensors result{{"loss", ScalarResult(metrics.loss)},
                      {"grad_norm", ScalarResult(metrics.grad_norm)},
                      {"approx_kl", ScalarResult(metrics.approx_kl)},
                      {"clip_fraction", ScalarResult(metrics.clip_fraction)}};
  AddLora(policy, result);
  return result;
}

absl::StatusOr<NamedTensors> Rwr(const Fixture& fixture, ParityModel& model) {
  DDPO_ASSIGN_OR_RETURN(const Pipeline* pipeline, model.pipeline());
  DDPO_ASSIGN_OR_RETURN(StepOptions options, ReadStepOptions(fixture));
  DDPO_ASSIGN_OR_RETURN(AdamWOptions optimizer_options, ReadOptimizerOptions(fixture));
  DDPO_ASSIGN_OR_RETURN(std::vector<std::string> prompts, fixture.Strings("prompts"));
  DDPO_ASSIGN_OR_RETURN(LoraWeights lora, ReadStartLora(fixture, *pipeline));
  DDPO_ASSIGN_OR_RETURN(const at::Tensor images, fixture.Images("images"));
  DDPO_ASSIGN_OR_RETURN(const at::Tensor posterior_noise, fixture.Floats("posterior_noise", 4));

  RwrBatch batch;
  DDPO_ASSIGN_OR_RETURN(batch.noise, fixture.Floats("noise", 4));
  DDPO_ASSIGN_OR_RETURN(batch.weights, fixture.Floats("weights", 1));
  DDPO_ASSIGN_OR_RETURN(batch.timesteps, fixture.Integers("timesteps", 1));
  batch.cond = pipeline->EncodePrompts(prompts);
  batch.uncond = pipeline->EncodePrompts({""});
  const at::Device device = model.options().device;
  batch.latents =
      PosteriorSample(*pipeline, EncodeImages(*pipeline, images.to(device), options.minibatch_size),
                      posterior_noise.to(device));
  batch.noise = batch.noise.to(device);
  batch.weights = batch.weights.to(device);
  batch.timesteps = batch.timesteps.to(device);

  TrainablePolicy policy(std::move(lora), {.optimizer = optimizer_options});
  GradientWorkers workers(1);
  DDPO_ASSIGN_OR_RETURN(StepMetrics metrics,
                        RwrStep(*pipeline, batch, static_cast<double>(batch.weights.size(0)),
                                options, workers, policy));
  NamedTensors result{{"loss", ScalarResult(metrics.loss)},
                      {"grad_norm", ScalarResult(metrics.grad_norm)}};
  AddLora(policy, result);
  return result;
}

// One epoch's pass over its samples in given orders, from rewards to weights.
absl::StatusOr<NamedTensors> Epoch(const Fixture& fixture, ParityModel& model) {
  DDPO_ASSIGN_OR_RETURN(const Pipeline* pipeline, model.pipeline());
  DDPO_ASSIGN_OR_RETURN(PolicyGradientOptions options, ReadPolicyGradientOptions(fixture));
  DDPO_ASSIGN_OR_RETURN(AdamWOptions optimizer_options, ReadOptimizerOptions(fixture));
  DDPO_ASSIGN_OR_RETURN(int64_t accumulation, fixture.Integer("gradient_accumulation"));
  DDPO_ASSIGN_OR_RETURN(int64_t buffer_size, fixture.Integer("stat_buffer_size"));
  DDPO_ASSIGN_OR_RETURN(int64_t min_count, fixture.Integer("stat_min_count"));
  DDPO_ASSIGN_OR_RETURN(std::vector<std::string> prompts, fixture.Strings("prompts"));
  DDPO_ASSIGN_OR_RETURN(LoraWeights lora, ReadStartLora(fixture, *pipeline));
  DDPO_ASSIGN_OR_RETURN(const at::Tensor rewards, fixture.Floats("rewards", 1));
  DDPO_ASSIGN_OR_RETURN(const at::Tensor latents, fixture.Floats("latents", 5));
  DDPO_ASSIGN_OR_RETURN(const at::Tensor log_probs, fixture.Floats("log_probs", 2));
  PassOrder order;
  DDPO_ASSIGN_OR_RETURN(order.samples, fixture.Integers("sample_order", 1));
  DDPO_ASSIGN_OR_RETURN(order.timesteps, fixture.Integers("timestep_order", 2));
  if (rewards.size(0) != static_cast<int64_t>(prompts.size()) ||
      latents.size(0) != rewards.size(0) || log_probs.size(0) != rewards.size(0)) {
    return fixture.Error("prompts, in.rewards, in.latents and in.log_probs differ in number");
  }

  const auto values = [](const at::Tensor& tensor) {
    const at::Tensor flat = tensor.contiguous();
    return std::vector<float>(flat.const_data_ptr<float>(),
                              flat.const_data_ptr<float>() + flat.numel());
  };
  std::vector<TrainingSample> samples(prompts.size());
  for (size_t i = 0; i < samples.size(); ++i) {
    samples[i].sample_index = static_cast<int>(i);
    samples[i].prompt = prompts[i];
    samples[i].latents = values(latents[static_cast<int64_t>(i)]);
    samples[i].log_probs = values(log_probs[static_cast<int64_t>(i)]);
  }
  DDPO_ASSIGN_OR_RETURN(PromptStatistics statistics,
                        PromptStatistics::Create({.buffer_size = static_cast<int>(buffer_size),
                                                  .min_count = static_cast<int>(min_count),
                                                  .clip = options.objective.adv_clip}));
  const std::vector<float> reward_values = values(rewards);
  DDPO_ASSIGN_OR_RETURN(
      const std::vector<double> advantages,
      statistics.Update(prompts, std::vector<double>(reward_values.begin(), reward_values.end())));

  DDPO_ASSIGN_OR_RETURN(const EpochTensors tensors,
                        EpochTensors::Create(*pipeline, options.objective.num_steps,
                                             {samples, advantages, /*epoch=*/0}));
  TrainablePolicy policy(std::move(lora), {.optimizer = optimizer_options});
  GradientWorkers workers(1);
  EpochMetrics metrics;
  DDPO_RETURN_IF_ERROR(PolicyGradientPass(*pipeline, tensors, order, options,
                                          static_cast<int>(accumulation), workers, policy,
                                          metrics));
  NamedTensors result{{"advantages", at::tensor(advantages, at::kDouble)}};
  AddLora(policy, result);
  return result;
}

}  // namespace

void AddPolicyGradientKinds(ParityKinds& kinds) {
  kinds["policy_gradient_step"] = PolicyGradient;
  kinds["rwr_step"] = Rwr;
  kinds["ddpo_epoch"] = Epoch;
}

}  // namespace ddpo
