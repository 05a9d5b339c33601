#include "tools/parity/training_options.h"

#include <utility>

#include "common/base/status_macros.h"

namespace ddpo {

absl::StatusOr<StepOptions> ReadStepOptions(const Fixture& fixture) {
  StepOptions options;
  DDPO_ASSIGN_OR_RETURN(options.guidance_scale, fixture.Number("guidance_scale"));
  DDPO_ASSIGN_OR_RETURN(options.max_grad_norm, fixture.Number("max_grad_norm"));
  DDPO_ASSIGN_OR_RETURN(int64_t minibatch, fixture.Integer("minibatch_size"));
  options.minibatch_size = static_cast<int>(minibatch);
  return options;
}

absl::StatusOr<PolicyGradientOptions> ReadPolicyGradientOptions(const Fixture& fixture) {
  PolicyGradientOptions options;
  DDPO_ASSIGN_OR_RETURN(static_cast<StepOptions&>(options), ReadStepOptions(fixture));
  DDPO_ASSIGN_OR_RETURN(options.objective.name, fixture.String("objective"));
  DDPO_ASSIGN_OR_RETURN(int64_t num_steps, fixture.Integer("num_inference_steps"));
  options.objective.num_steps = static_cast<int>(num_steps);
  DDPO_ASSIGN_OR_RETURN(options.objective.eta, fixture.Number("eta"));
  DDPO_ASSIGN_OR_RETURN(options.objective.clip_range, fixture.Number("clip_range"));
  DDPO_ASSIGN_OR_RETURN(options.objective.adv_clip, fixture.Number("adv_clip"));
  return options;
}

absl::StatusOr<AdamWOptions> ReadOptimizerOptions(const Fixture& fixture) {
  AdamWOptions options;
  DDPO_ASSIGN_OR_RETURN(options.learning_rate, fixture.Number("learning_rate"));
  DDPO_ASSIGN_OR_RETURN(options.beta1, fixture.NumberOr("adam_beta1", options.beta1));
  DDPO_ASSIGN_OR_RETURN(options.beta2, fixture.NumberOr("adam_beta2", options.beta2));
  DDPO_ASSIGN_OR_RETURN(options.epsilon, fixture.NumberOr("adam_epsilon", options.epsilon));
  DDPO_ASSIGN_OR_RETURN(options.weight_decay,
                        fixture.NumberOr("adam_weight_decay", options.weight_decay));
  return options;
}

absl::StatusOr<LoraWeights> ReadStartLora(const Fixture& fixture, const Pipeline& pipeline) {
  DDPO_ASSIGN_OR_RETURN(double alpha, fixture.NumberOr("lora_alpha", 0));
  if (fixture.lora().empty()) return fixture.Error("it has no in.lora.* tensors to train");
  NamedTensors start;
  for (const auto& [name, tensor] : fixture.lora()) start[name] = tensor.to(at::kFloat).clone();
  return LoraFromTensors(pipeline.unet(), std::move(start), alpha);
}

at::Tensor ScalarResult(double value) { return at::scalar_tensor(value, at::kDouble); }

void AddLora(const TrainablePolicy& policy, NamedTensors& result) {
  for (const auto& [name, tensor] : policy.Copy()) result["lora." + name] = tensor;
}

}  // namespace ddpo
