#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "common/nn/lora.h"
#include "common/tensors/safetensors.h"
#include "learner/ddpo_trainer.h"
#include "tests/learner/tiny_pipeline.h"

namespace ddpo::testing {

inline constexpr int kNumSteps = 4;

inline const std::vector<std::string>& Prompts() {
  static const auto& prompts = *new std::vector<std::string>{
      "a cat", "an ant", "a cat", "a dog", "an ant", "two cats", "a cat", "a dog"};
  return prompts;
}

inline DdpoTrainerOptions SmallTrainer() {
  DdpoTrainerOptions options;
  options.step.objective.num_steps = kNumSteps;
  options.step.minibatch_size = 4;
  options.policy.optimizer.learning_rate = 1e-2;
  options.lora_rank = 2;
  return options;
}

inline std::unique_ptr<PolicyTrainer> MakeTrainer(const DdpoTrainerOptions& options,
                                                  const NetworkOptions& network = {}) {
  return CreateDdpoTrainer(options, LoadTinyPipeline(network)).value();
}

// Trajectories of the trainer's policy, as an actor with unmerged LoRA samples them.
inline std::vector<TrainingSample> Sample(const PolicyTrainer& trainer, size_t batch_size,
                                          int64_t policy_version = 0) {
  const std::unique_ptr<Pipeline> pipeline = LoadTinyPipeline();
  const LoraWeights lora =
      LoraFromContents(pipeline->unet(),
                       ParseSafetensors(trainer.SerializePolicy().value()).value())
          .value();
  return SampleTrajectories(*pipeline, Prompts(), batch_size, {.num_steps = kNumSteps}, &lora,
                            policy_version);
}

inline const std::vector<double>& Advantages() {
  static const auto& advantages = *new std::vector<double>{1, -1, 0.5, -0.5, 2, -2, 0.25, 1.5};
  return advantages;
}

// How far apart two updates of the policy `start` end, relative to how far the first of them moves.
// All are what SerializePolicy gives.
inline double UpdateDifference(const std::string& start, const std::string& expected,
                               const std::string& found) {
  const NamedTensors before = ParseSafetensors(start).value().tensors;
  const NamedTensors first = ParseSafetensors(expected).value().tensors;
  const NamedTensors second = ParseSafetensors(found).value().tensors;
  double moved = 0, apart = 0;
  for (const auto& [key, tensor] : first) {
    moved += (tensor - before.at(key)).to(at::kDouble).square().sum().item<double>();
    apart += (tensor - second.at(key)).to(at::kDouble).square().sum().item<double>();
  }
  EXPECT_GT(moved, 0);
  return std::sqrt(apart / moved);
}

}  // namespace ddpo::testing
