#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/nn/lora.h"
#include "learner/policy_gradient_step.h"
#include "tools/parity/kinds.h"

namespace ddpo {
namespace {

absl::StatusOr<PolicyGradientOptions> StepOptions(const Fixture& fixture) {
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

absl::StatusOr<NamedTensors> PolicyGradient(const Fixture& fixture, ParityModel& model) {
  DDPO_ASSIGN_OR_RETURN(const Pipeline* pipeline, model.pipeline());
  DDPO_ASSIGN_OR_RETURN(PolicyGradientOptions options, StepOptions(fixture));
  DDPO_ASSIGN_OR_RETURN(AdamWOptions optimizer_options, OptimizerOptions(fixture));
  DDPO_ASSIGN_OR_RETURN(std::vector<std::string> prompts, fixture.Strings("prompts"));
  DDPO_ASSIGN_OR_RETURN(double alpha, fixture.NumberOr("lora_alpha", 0));
  if (fixture.lora().empty()) return fixture.Error("it has no in.lora.* tensors to train");

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

  // The optimizer works in place: the fixture's own tensors stay as they are.
  NamedTensors start;
  for (const auto& [name, tensor] : fixture.lora()) start[name] = tensor.to(at::kFloat).clone();
  DDPO_ASSIGN_OR_RETURN(LoraWeights lora,
                        LoraFromTensors(pipeline->unet(), std::move(start), alpha));
  TrainablePolicy policy(std::move(lora), {.optimizer = optimizer_options});
  GradientWorkers workers(1);
  DDPO_ASSIGN_OR_RETURN(StepMetrics metrics,
                        PolicyGradientStep(*pipeline, batch, options, workers, policy));

  const auto scalar = [](double value) { return at::scalar_tensor(value, at::kDouble); };
  NamedTensors result{{"loss", scalar(metrics.loss)},
                      {"grad_norm", scalar(metrics.grad_norm)},
                      {"approx_kl", scalar(metrics.approx_kl)},
                      {"clip_fraction", scalar(metrics.clip_fraction)}};
  for (const auto& [name, tensor] : policy.Copy()) result["lora." + name] = tensor;
  return result;
}

}  // namespace

void AddPolicyGradientKinds(ParityKinds& kinds) { kinds["policy_gradient_step"] = PolicyGradient; }

}  // namespace ddpo
