#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/nn/lora.h"
#include "learner/policy_gradient_step.h"
#include "learner/rwr_step.h"
#include "learner/trainable_policy.h"
#include "tools/parity/kinds.h"

namespace ddpo {
namespace {

absl::StatusOr<PolicyGradientOptions> GradientOptions(const Fixture& fixture) {
  PolicyGradientOptions options;
  DDPO_ASSIGN_OR_RETURN(options.objective.name, fixture.String("objective"));
  DDPO_ASSIGN_OR_RETURN(int64_t num_steps, fixture.Integer("num_inference_steps"));
  options.objective.num_steps = static_cast<int>(num_steps);
  DDPO_ASSIGN_OR_RETURN(options.objective.eta, fixture.Number("eta"));
  DDPO_ASSIGN_OR_RETURN(options.objective.clip_range, fixture.Number("clip_range"));
  DDPO_ASSIGN_OR_RETURN(options.objective.adv_clip, fixture.Number("adv_clip"));
  DDPO_ASSIGN_OR_RETURN(options.guidance_scale, fixture.Number("guidance_scale"));
  DDPO_ASSIGN_OR_RETURN(options.max_grad_norm, fixture.Number("max_grad_norm"));
  DDPO_ASSIGN_OR_RETURN(int64_t minibatch, fixture.Integer("minibatch_size"));
  options.minibatch_size = static_cast<int>(minibatch);
  return options;
}

absl::StatusOr<AdamWOptions> OptimizerOptions(const Fixture& fixture) {
  AdamWOptions options;
  DDPO_ASSIGN_OR_RETURN(options.learning_rate, fixture.Number("learning_rate"));
  DDPO_ASSIGN_OR_RETURN(options.beta1, fixture.NumberOr("adam_beta1", options.beta1));
  DDPO_ASSIGN_OR_RETURN(options.beta2, fixture.NumberOr("adam_beta2", options.beta2));
  DDPO_ASSIGN_OR_RETURN(options.epsilon, fixture.NumberOr("adam_epsilon", options.epsilon));
  DDPO_ASSIGN_OR_RETURN(options.weight_decay,
                        fixture.NumberOr("adam_weight_decay", options.weight_decay));
  return options;
}

// The fixture's LoRA, ready to be trained. The optimizer works in place: the fixture's own tensors
// stay as they are.
absl::StatusOr<LoraWeights> StartLora(const Fixture& fixture, const Pipeline& pipeline) {
  DDPO_ASSIGN_OR_RETURN(double alpha, fixture.NumberOr("lora_alpha", 0));
  if (fixture.lora().empty()) return fixture.Error("it has no in.lora.* tensors to train");
  NamedTensors start;
  for (const auto& [name, tensor] : fixture.lora()) start[name] = tensor.to(at::kFloat).clone();
  return LoraFromTensors(pipeline.unet(), std::move(start), alpha);
}

at::Tensor Scalar(double value) { return at::scalar_tensor(value, at::kDouble); }

void AddLora(const TrainablePolicy& policy, NamedTensors& result) {
  for (const auto& [name, tensor] : policy.Copy()) result["lora." + name] = tensor;
}

absl::StatusOr<NamedTensors> PolicyGradient(const Fixture& fixture, ParityModel& model) {
  DDPO_ASSIGN_OR_RETURN(const Pipeline* pipeline, model.pipeline());
  DDPO_ASSIGN_OR_RETURN(PolicyGradientOptions options, GradientOptions(fixture));
  DDPO_ASSIGN_OR_RETURN(AdamWOptions optimizer_options, OptimizerOptions(fixture));
  DDPO_ASSIGN_OR_RETURN(std::vector<std::string> prompts, fixture.Strings("prompts"));
  DDPO_ASSIGN_OR_RETURN(LoraWeights lora, StartLora(fixture, *pipeline));

  PolicyBatch batch;
  DDPO_ASSIGN_OR_RETURN(batch.latents, fixture.Floats("latents", 5));
  DDPO_ASSIGN_OR_RETURN(batch.log_probs, fixture.Floats("log_probs", 2));
  DDPO_ASSIGN_OR_RETURN(batch.advantages, fixture.Floats("advantages", 1));
  DDPO_ASSIGN_OR_RETURN(batch.timestep_order, fixture.Integers("timestep_order", 2));
  batch.cond = pipeline->EncodePrompts(prompts);
  batch.uncond = pipeline->EncodePrompts({""});
  const at::Device device = model.options().device;
  batch.latents = batch.latents.to(device);
  batch.log_probs = batch.log_probs.to(device);
  batch.advantages = batch.advantages.to(device);

  TrainablePolicy policy(std::move(lora), {.optimizer = optimizer_options});
  GradientWorkers workers(1);
  DDPO_ASSIGN_OR_RETURN(StepMetrics metrics,
                        PolicyGradientStep(*pipeline, batch, options, workers, policy));

  NamedTensors result{{"loss", Scalar(metrics.loss)},
                      {"grad_norm", Scalar(metrics.grad_norm)},
                      {"approx_kl", Scalar(metrics.approx_kl)},
                      {"clip_fraction", Scalar(metrics.clip_fraction)}};
  AddLora(policy, result);
  return result;
}

absl::StatusOr<NamedTensors> Rwr(const Fixture& fixture, ParityModel& model) {
  DDPO_ASSIGN_OR_RETURN(const Pipeline* pipeline, model.pipeline());
  StepOptions options;
  DDPO_ASSIGN_OR_RETURN(options.guidance_scale, fixture.Number("guidance_scale"));
  DDPO_ASSIGN_OR_RETURN(options.max_grad_norm, fixture.Number("max_grad_norm"));
  DDPO_ASSIGN_OR_RETURN(int64_t minibatch, fixture.Integer("minibatch_size"));
  options.minibatch_size = static_cast<int>(minibatch);
  DDPO_ASSIGN_OR_RETURN(AdamWOptions optimizer_options, OptimizerOptions(fixture));
  DDPO_ASSIGN_OR_RETURN(std::vector<std::string> prompts, fixture.Strings("prompts"));
  DDPO_ASSIGN_OR_RETURN(LoraWeights lora, StartLora(fixture, *pipeline));
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
  NamedTensors result{{"loss", Scalar(metrics.loss)}, {"grad_norm", Scalar(metrics.grad_norm)}};
  AddLora(policy, result);
  return result;
}

}  // namespace

void AddPolicyGradientKinds(ParityKinds& kinds) {
  kinds["policy_gradient_step"] = PolicyGradient;
  kinds["rwr_step"] = Rwr;
}

}  // namespace ddpo
