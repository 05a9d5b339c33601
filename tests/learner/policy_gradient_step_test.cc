#include "learner/policy_gradient_step.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "tests/learner/tiny_pipeline.h"
#include "tests/testing/golden_fixture.h"

namespace ddpo {
namespace {

using ::ddpo::testing::GoldenFixture;
using ::ddpo::testing::MaxAbsDiff;
using ::ddpo::testing::ReadGoldenFixture;
using ::testing::AllOf;
using ::testing::HasSubstr;

const Pipeline& Tiny() {
  static const auto& pipeline = *new std::unique_ptr<Pipeline>(ddpo::testing::LoadTinyPipeline());
  return *pipeline;
}

GoldenFixture Golden(const std::string& name) {
  return ReadGoldenFixture("pipelines/tiny_fixtures/policy_gradient_step_" + name + ".safetensors");
}

// A golden step's inputs, ready to be taken.
struct Step {
  explicit Step(const GoldenFixture& golden) {
    const nlohmann::json& params = golden.params;
    options.objective.name = params.at("objective");
    options.objective.num_steps = params.at("num_inference_steps");
    options.objective.eta = params.at("eta");
    options.objective.clip_range = params.at("clip_range");
    options.objective.adv_clip = params.at("adv_clip");
    options.guidance_scale = params.at("guidance_scale");
    options.minibatch_size = params.at("minibatch_size");
    options.max_grad_norm = params.at("max_grad_norm");
    adamw.learning_rate = params.at("learning_rate");
    adamw.beta1 = params.at("adam_beta1");
    adamw.beta2 = params.at("adam_beta2");
    adamw.epsilon = params.at("adam_epsilon");
    adamw.weight_decay = params.at("adam_weight_decay");
    batch.cond = Tiny().EncodePrompts(params.at("prompts").get<std::vector<std::string>>());
    batch.uncond = Tiny().EncodePrompts({""});
    batch.latents = golden.in.at("latents").unbind(0);
    batch.log_probs = golden.in.at("log_probs");
    batch.advantages = golden.in.at("advantages");
    batch.timestep_order = golden.in.at("timestep_order");
    NamedTensors tensors;
    for (const auto& [key, tensor] : golden.lora) tensors[key] = tensor.clone();
    lora = LoraFromTensors(Tiny().unet(), std::move(tensors)).value();
  }

  // Changes the tensors of `lora`.
  absl::StatusOr<StepMetrics> Take(int threads = 1) {
    GradientWorkers workers(threads);
    TrainablePolicy policy(lora, {.optimizer = adamw});
    return PolicyGradientStep(Tiny(), batch, options, workers, policy);
  }

  PolicyGradientOptions options;
  AdamWOptions adamw;
  PolicyBatch batch;
  LoraWeights lora;
};

// By the golden's name; the `whole` ones take the batch as one minibatch, the others accumulate.
class GoldenStepTest : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Objectives, GoldenStepTest,
                         ::testing::Values("ddpo_is", "ddpo_is_whole", "ddpo_sf", "ddpo_sf_whole"),
                         [](const auto& instance) { return std::string(instance.param); });

TEST_P(GoldenStepTest, IsTheStepOfDiffusersPeftAndTorch) {
  const GoldenFixture golden = Golden(GetParam());
  Step step(golden);
  const StepMetrics metrics = step.Take(2).value();
  const auto expected = [&](const char* name) { return golden.out.at(name).item<double>(); };
  EXPECT_NEAR(metrics.loss, expected("loss"), 1e-5);
  EXPECT_NEAR(metrics.grad_norm, expected("grad_norm"), 1e-4 * expected("grad_norm"));
  // Log-ratios of 2e-3 have float32 errors of some 1e-7.
  EXPECT_NEAR(metrics.approx_kl, expected("approx_kl"), 1e-3 * expected("approx_kl"));
  EXPECT_NEAR(metrics.clip_fraction, expected("clip_fraction"), 1e-6);
  for (const auto& [key, tensor] : step.lora.tensors) {
    EXPECT_LE(MaxAbsDiff(tensor, golden.out.at("lora." + key)), 1e-5) << key;
    EXPECT_GT(MaxAbsDiff(tensor, golden.lora.at(key)), 1e-5) << key << " did not move";
  }
}

TEST_P(GoldenStepTest, HasTheSameBitsForAnyNumberOfWorkers) {
  const GoldenFixture golden = Golden(GetParam());
  Step alone(golden);
  const StepMetrics expected = alone.Take(1).value();
  for (int threads : {2, 3}) {
    Step step(golden);
    const StepMetrics metrics = step.Take(threads).value();
    EXPECT_EQ(metrics.loss, expected.loss);
    EXPECT_EQ(metrics.grad_norm, expected.grad_norm);
    for (const auto& [key, tensor] : step.lora.tensors) {
      EXPECT_TRUE(at::equal(tensor, alone.lora.tensors.at(key))) << key << ", " << threads;
    }
  }
}

TEST(PolicyGradientStepTest, ALastMinibatchMayBeSmaller) {
  Step step(Golden("ddpo_is"));
  step.options.minibatch_size = 3;
  EXPECT_TRUE(step.Take().ok());
}

TEST(PolicyGradientStepTest, ALossThatIsNotANumberNamesItsMinibatch) {
  const GoldenFixture golden = Golden("ddpo_is");
  Step step(golden);
  step.batch.advantages =
      at::tensor({1.0, 1.0, 1.0, std::numeric_limits<double>::quiet_NaN()}, at::kFloat);
  const absl::Status status = step.Take(2).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("minibatch 1 (samples 2 … 3), timestep column 0"),
                    HasSubstr("the loss is nan")));
  for (const auto& [key, tensor] : step.lora.tensors) {
    EXPECT_TRUE(at::equal(tensor, golden.lora.at(key))) << key;
  }
}

TEST(PolicyGradientStepTest, RefusesShapesThatDoNotFit) {
  const auto message = [](void (*damage)(Step&)) {
    Step step(Golden("ddpo_is"));
    damage(step);
    const absl::Status status = step.Take().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(message([](Step& step) { step.options.objective.num_steps = 3; }),
              HasSubstr("latents has shape [5,4,4,4], expected [4,4,4,4]"));
  EXPECT_THAT(message([](Step& step) {
                step.batch.log_probs = at::zeros({4, 5});
              }),
              HasSubstr("log_probs has shape [4,5], expected [4,4]"));
  EXPECT_THAT(message([](Step& step) { step.batch.advantages = at::zeros({3}); }),
              HasSubstr("advantages has shape [3], expected [4]"));
  EXPECT_THAT(message([](Step& step) {
                step.batch.timestep_order = at::full({4, 2}, 4, at::kLong);
              }),
              HasSubstr("timestep_order holds steps 4 … 4, expected 0 … 3"));
}

// Two ranks with half of the batch each, joined by the mean of their gradients, take the step that
// one rank takes over all of it.
TEST(PolicyGradientStepTest, RanksThatAverageGradientsTakeOneRanksStep) {
  const GoldenFixture golden = Golden("ddpo_is");
  Step whole(golden);
  ASSERT_TRUE(whole.Take().ok());
  const auto half = [&](int64_t begin) {
    Step step(golden);
    for (at::Tensor* tensor : {&step.batch.cond, &step.batch.log_probs, &step.batch.advantages,
                               &step.batch.timestep_order}) {
      *tensor = tensor->slice(0, begin, begin + 2);
    }
    step.batch.latents = {step.batch.latents[begin], step.batch.latents[begin + 1]};
    return step;
  };
  at::Tensor of_other_rank;
  Step other = half(2);
  other.options.all_reduce = [&](at::Tensor& gradient) {
    of_other_rank = gradient.clone();
    return absl::OkStatus();
  };
  ASSERT_TRUE(other.Take().ok());
  Step mine = half(0);
  mine.options.all_reduce = [&](at::Tensor& gradient) {
    gradient.add_(of_other_rank).div_(2);
    return absl::OkStatus();
  };
  ASSERT_TRUE(mine.Take().ok());
  for (const auto& [key, tensor] : mine.lora.tensors) {
    EXPECT_LE(MaxAbsDiff(tensor, whole.lora.tensors.at(key)), 1e-5) << key;
  }
}

// What reaches the other ranks would look to them as if a gradient were not finite.
TEST(PolicyGradientStepTest, OnlyWhatIsNotFiniteReachesTheOtherRanks) {
  const auto reached = [](const auto& spoil, absl::StatusCode expected) {
    Step step(Golden("ddpo_is"));
    spoil(step.batch);
    bool called = false;
    step.options.all_reduce = [&](at::Tensor&) {
      called = true;
      return absl::OkStatus();
    };
    EXPECT_EQ(step.Take().status().code(), expected);
    return called;
  };
  EXPECT_TRUE(reached([](PolicyBatch& batch) { batch.advantages = batch.advantages * NAN; },
                      absl::StatusCode::kOutOfRange));
  // c10::Error: the text's features are not as many as the UNet takes.
  EXPECT_FALSE(reached([](PolicyBatch& batch) { batch.cond = batch.cond.slice(2, 1); },
                       absl::StatusCode::kInternal));
}

TEST(PolicyGradientStepTest, AnErrorOfTheOtherRanksLeavesTheWeightsAlone) {
  const GoldenFixture golden = Golden("ddpo_is");
  Step step(golden);
  step.options.all_reduce = [](at::Tensor&) { return absl::UnavailableError("rank 1 is gone"); };
  EXPECT_EQ(step.Take().status().code(), absl::StatusCode::kUnavailable);
  for (const auto& [key, tensor] : step.lora.tensors) {
    EXPECT_TRUE(at::equal(tensor, golden.lora.at(key))) << key;
  }
}

}  // namespace
}  // namespace ddpo
