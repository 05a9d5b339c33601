#pragma once

#include "absl/status/statusor.h"
#include "common/diffusion/pipeline.h"
#include "common/nn/lora.h"
#include "common/tensors/safetensors.h"
#include "learner/adamw.h"
#include "learner/policy_gradient_step.h"
#include "learner/trainable_policy.h"
#include "tools/parity/fixture.h"

namespace ddpo {

// What the kinds that take optimizer steps read from a fixture and write.

// objective, num_inference_steps, eta, clip_range, adv_clip and those of ReadStepOptions.
absl::StatusOr<PolicyGradientOptions> ReadPolicyGradientOptions(const Fixture& fixture);
// guidance_scale, max_grad_norm and minibatch_size.
absl::StatusOr<StepOptions> ReadStepOptions(const Fixture& fixture);
// learning_rate and, where they are given, AdamW's other parameters.
absl::StatusOr<AdamWOptions> ReadOptimizerOptions(const Fixture& fixture);
// in.lora.* as a policy that is ready to be trained; the fixture's own tensors stay as they are.
absl::StatusOr<LoraWeights> ReadStartLora(const Fixture& fixture, const Pipeline& pipeline);

// The policy's weights as lora.*.
void AddLora(const TrainablePolicy& policy, NamedTensors& result);
at::Tensor ScalarResult(double value);

}  // namespace ddpo
