#include "learner/rwr_step.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/learner/tiny_pipeline.h"
#include "tests/testing/golden_fixture.h"

namespace ddpo {
namespace {

using ::ddpo::testing::GoldenFixture;
using ::ddpo::testing::MaxAbsDiff;
using ::ddpo::testing::ReadGoldenFixture;
using ::testing::HasSubstr;

const Pipeline& Tiny() {
  static const auto& pipeline = *new std::unique_ptr<Pipeline>(ddpo::testing::LoadTinyPipeline());
  return *pipeline;
}

GoldenFixture Golden(const std::string& weights) {
  return ReadGoldenFixture("pipelines/tiny_fixtures/rwr_step_" + weights + ".safetensors");
}

// A golden step's inputs, ready to be taken.
struct Step {
  explicit Step(const GoldenFixture& golden) {
    const nlohmann::json& params = golden.params;
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
    batch.latents =
        PosteriorSample(Tiny(), EncodeImages(Tiny(), golden.in.at("images"), /*minibatch_size=*/3),
                        golden.in.at("posterior_noise"));
    batch.noise = golden.in.at("noise");
    batch.timesteps = golden.in.at("timesteps");
    batch.weights = golden.in.at("weights");
    NamedTensors tensors;
    for (const auto& [key, tensor] : golden.lora) tensors[key] = tensor.clone();
    lora = LoraFromTensors(Tiny().unet(), std::move(tensors)).value();
  }

  // Changes the tensors of `lora`.
  absl::StatusOr<StepMetrics> Take(int threads = 1) {
    GradientWorkers workers(threads);
    TrainablePolicy policy(lora, {.optimizer = adamw});
    const double divisor = samples > 0 ? samples : static_cast<double>(batch.weights.size(0));
    return RwrStep(Tiny(), batch, divisor, options, workers, policy);
  }

  StepOptions options;
  AdamWOptions adamw;
  RwrBatch batch;
  double samples = 0;  // 0: those of the batch
  LoraWeights lora;
};

class GoldenRwrTest : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Weights, GoldenRwrTest, ::testing::Values("dense", "sparse"),
                         [](const auto& instance) { return std::string(instance.param); });

TEST_P(GoldenRwrTest, IsTheStepOfDiffusersPeftAndTorch) {
  const GoldenFixture golden = Golden(GetParam());
  Step step(golden);
  const StepMetrics metrics = step.Take(2).value();
  const auto expected = [&](const char* name) { return golden.out.at(name).item<double>(); };
  EXPECT_NEAR(metrics.loss, expected("loss"), 1e-5 * expected("loss"));
  EXPECT_NEAR(metrics.grad_norm, expected("grad_norm"), 1e-4 * expected("grad_norm"));
  for (const auto& [key, tensor] : step.lora.tensors) {
    EXPECT_LE(MaxAbsDiff(tensor.detach(), golden.out.at("lora." + key)), 1e-5) << key;
    EXPECT_GT(MaxAbsDiff(tensor.detach(), golden.lora.at(key)), 1e-5) << key << " did not move";
  }
}

TEST(RwrStepTest, ASampleOfWeightZeroChangesNothing) {
  const GoldenFixture golden = Golden("sparse");
  Step step(golden);
  step.options.minibatch_size = 4;
  const double loss = step.Take()->loss;
  const at::Tensor idle = (golden.in.at("weights") == 0).nonzero().flatten();
  ASSERT_GT(idle.numel(), 0);
  Step other(golden);
  other.options.minibatch_size = 4;
  other.batch.noise = other.batch.noise.clone();
  other.batch.noise.index_fill_(0, idle, 3.0);
  EXPECT_EQ(other.Take()->loss, loss);
}

// Two ranks with three samples and one, joined by the mean of their gradients, take the step that
// one rank takes over all four.
TEST(RwrStepTest, RanksWithUnequalSharesTakeOneRanksStep) {
  const GoldenFixture golden = Golden("dense");
  Step whole(golden);
  ASSERT_TRUE(whole.Take().ok());
  const auto part = [&](int64_t begin, int64_t end) {
    Step step(golden);
    for (at::Tensor* tensor : {&step.batch.cond, &step.batch.latents, &step.batch.noise,
                               &step.batch.timesteps, &step.batch.weights}) {
      *tensor = tensor->slice(0, begin, end);
    }
    step.samples = 2;  // four samples over two ranks
    return step;
  };
  at::Tensor theirs;
  Step their_step = part(3, 4);
  their_step.options.all_reduce = [&](at::Tensor& gradient) {
    theirs = gradient.clone();
    return absl::OkStatus();
  };
  ASSERT_TRUE(their_step.Take().ok());
  Step mine = part(0, 3);
  mine.options.all_reduce = [&](at::Tensor& gradient) {
    gradient.add_(theirs).div_(2);
    return absl::OkStatus();
  };
  ASSERT_TRUE(mine.Take().ok());
  // Sums in another order.
  for (const auto& [key, tensor] : mine.lora.tensors) {
    EXPECT_LE(MaxAbsDiff(tensor.detach(), whole.lora.tensors.at(key).detach()), 1e-5) << key;
  }
}

TEST(RwrStepTest, ARankWithoutSamplesTakesPartWithAGradientOfZero) {
  Step step(Golden("dense"));
  for (at::Tensor* tensor : {&step.batch.cond, &step.batch.latents, &step.batch.noise,
                             &step.batch.timesteps, &step.batch.weights}) {
    *tensor = tensor->slice(0, 0, 0);
  }
  step.samples = 2;
  bool asked = false;
  step.options.all_reduce = [&](at::Tensor& gradient) {
    asked = true;
    EXPECT_EQ(gradient.abs().max().item<float>(), 0);
    return absl::OkStatus();
  };
  EXPECT_TRUE(step.Take().ok());
  EXPECT_TRUE(asked);
}

TEST(RwrStepTest, RefusesWhatDoesNotFit) {
  const auto message = [](void (*damage)(Step&)) {
    Step step(Golden("dense"));
    damage(step);
    const absl::Status status = step.Take().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(message([](Step& step) { step.batch.timesteps = at::full({4}, 1000, at::kLong); }),
              HasSubstr("timesteps are 1000 … 1000, expected 0 … 999"));
  EXPECT_THAT(message([](Step& step) {
                step.batch.noise = at::zeros({3, 4, 4, 4});
              }),
              HasSubstr("latents and noise are not"));
  EXPECT_THAT(message([](Step& step) { step.options.minibatch_size = 0; }),
              HasSubstr("minibatch_size is 0"));
}

}  // namespace
}  // namespace ddpo
