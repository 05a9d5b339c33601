// One epoch of TRL 0.19.1's DDPOTrainer, recorded by tools/python/parity/trl_epoch.py.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "learner/advantages.h"
#include "learner/policy_gradient_epoch.h"
#include "tests/learner/tiny_pipeline.h"
#include "tests/testing/golden_fixture.h"

namespace ddpo {
namespace {

using ::ddpo::testing::GoldenFixture;
using ::ddpo::testing::LoadTinyPipeline;
using ::ddpo::testing::ReadGoldenFixture;

template <typename T>
std::vector<T> Values(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.to(c10::CppTypeToScalarType<T>::value).contiguous();
  return {flat.const_data_ptr<T>(), flat.const_data_ptr<T>() + flat.numel()};
}

// Fed with TRL's latents, log-probabilities, rewards and shuffles, the trainer ends with its LoRA.
TEST(TrlEpochTest, EndsWithTrlsLora) {
  const GoldenFixture golden =
      ReadGoldenFixture("pipelines/tiny_fixtures/ddpo_epoch_trl.safetensors");
  const nlohmann::json& params = golden.params;
  const std::unique_ptr<Pipeline> pipeline = LoadTinyPipeline();

  const std::vector<std::string> prompts = params.at("prompts");
  PromptStatistics statistics =
      PromptStatistics::Create({.buffer_size = params.at("stat_buffer_size"),
                                .min_count = params.at("stat_min_count"),
                                .clip = params.at("adv_clip")})
          .value();
  const std::vector<double> advantages =
      statistics.Update(prompts, Values<double>(golden.in.at("rewards"))).value();
  const std::vector<double> expected = Values<double>(golden.out.at("advantages"));
  std::vector<TrainingSample> samples(prompts.size());
  for (size_t i = 0; i < samples.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    samples[i].prompt = prompts[i];
    samples[i].latents = Values<float>(golden.in.at("latents")[row]);
    samples[i].log_probs = Values<float>(golden.in.at("log_probs")[row]);
    // TRL normalises in float32.
    EXPECT_NEAR(advantages[i], expected[i], 1e-5);
  }

  PolicyGradientOptions options;
  options.objective = {.name = params.at("objective"),
                       .num_steps = params.at("num_inference_steps"),
                       .eta = params.at("eta"),
                       .clip_range = params.at("clip_range"),
                       .adv_clip = params.at("adv_clip")};
  options.guidance_scale = params.at("guidance_scale");
  options.minibatch_size = params.at("minibatch_size");
  options.max_grad_norm = params.at("max_grad_norm");
  NamedTensors start;
  for (const auto& [key, tensor] : golden.lora) start[key] = tensor.clone();
  TrainablePolicy policy(LoraFromTensors(pipeline->unet(), std::move(start)).value(),
                         {.optimizer = {.learning_rate = params.at("learning_rate"),
                                        .beta1 = params.at("adam_beta1"),
                                        .beta2 = params.at("adam_beta2"),
                                        .epsilon = params.at("adam_epsilon"),
                                        .weight_decay = params.at("adam_weight_decay")}});
  GradientWorkers workers(2);
  EpochMetrics metrics;
  const EpochTensors tensors =
      EpochTensors::Create(*pipeline, options.objective.num_steps, {samples, advantages, 0})
          .value();
  const PassOrder order{golden.in.at("sample_order"), golden.in.at("timestep_order")};
  ASSERT_TRUE(PolicyGradientPass(*pipeline, tensors, order, options,
                                 params.at("gradient_accumulation"), workers, policy, metrics)
                  .ok());
  EXPECT_EQ(metrics.Mean().optimizer_steps, 4);
  for (const auto& [key, tensor] : policy.Copy()) {
    const at::Tensor trl = golden.out.at("lora." + key).to(at::kDouble);
    // B starts at zero: its norm is that of the whole epoch's update.
    EXPECT_LE((tensor.to(at::kDouble) - trl).norm().item<double>(),
              1e-4 * trl.norm().item<double>())
        << key;
  }
}

}  // namespace
}  // namespace ddpo
