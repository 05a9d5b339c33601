#include "common/diffusion/ddim_scheduler.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "common/tensors/safetensors.h"
#include "tests/testing/golden_fixture.h"
#include "tests/testing/paths.h"

namespace ddpo {
namespace {

using ::ddpo::testing::MaxAbsDiff;
using ::ddpo::testing::SourcePath;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kCases[] = {"sd15",   "trailing",          "linspace",  "v_prediction",
                                  "linear", "sample_prediction", "squaredcos"};

DdimScheduler LoadCase(const std::string& name) {
  return DdimScheduler::Load(SourcePath("tests/goldens/schedulers/" + name)).value();
}

const NamedTensors& Goldens() {
  static const auto& goldens = *new NamedTensors(
      ReadSafetensors(SourcePath("tests/goldens/schedulers/ddim.safetensors")).value().tensors);
  return goldens;
}

std::vector<int64_t> Values(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<int64_t>(), tensor.const_data_ptr<int64_t>() + tensor.numel()};
}

at::Tensor Repeat(int64_t timestep, int64_t count) {
  return at::full({count}, timestep, at::kLong);
}

class DdimGoldenTest : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Configurations, DdimGoldenTest, ::testing::ValuesIn(kCases),
                         [](const auto& instance) { return std::string(instance.param); });

TEST_P(DdimGoldenTest, TakesTheTimestepsOfDiffusers) {
  const DdimScheduler scheduler = LoadCase(GetParam());
  for (int count : {1, 7, 50, 125}) {
    const std::string key = std::string(GetParam()) + ".timesteps." + std::to_string(count);
    EXPECT_EQ(scheduler.Timesteps(count).value(), Values(Goldens().at(key))) << count;
  }
}

TEST_P(DdimGoldenTest, StepsAsDiffusersDoesWithTheSameNoise) {
  const DdimScheduler scheduler = LoadCase(GetParam());
  int steps = 0;
  for (const auto& [name, prev_sample] : Goldens()) {
    const std::string prefix = std::string(GetParam()) + ".ddim.";
    if (!name.starts_with(prefix) || !name.ends_with(".prev_sample")) continue;
    ++steps;
    const std::string key = name.substr(0, name.size() - std::string("prev_sample").size());
    int count = 0;
    int index = 0;
    ASSERT_EQ(std::sscanf(key.c_str() + prefix.size(), "%d.%d.", &count, &index), 2) << key;
    const double eta = Goldens().at(key + "eta").item<float>();
    const at::Tensor& sample = Goldens().at(key + "sample");
    const at::Tensor t = Repeat(scheduler.Timesteps(count).value()[index], sample.size(0));
    const DdimStep step = scheduler.Step(sample, Goldens().at(key + "model_output"), t, count, eta,
                                         Goldens().at(key + "noise"));
    // Values are up to 30; float32's spacing there is 2e-6.
    EXPECT_LE(MaxAbsDiff(step.prev_sample, prev_sample), 1e-5) << key;
    const auto log_prob = Goldens().find(key + "log_prob");
    const at::Tensor expected =
        log_prob != Goldens().end() ? log_prob->second : at::zeros({sample.size(0)});
    EXPECT_LE(MaxAbsDiff(step.log_prob, expected), 1e-5) << key;
  }
  EXPECT_GE(steps, 4);
}

TEST_P(DdimGoldenTest, AddsNoiseAsDiffusersDoes) {
  const std::string key = std::string(GetParam()) + ".add_noise.";
  const at::Tensor noisy =
      LoadCase(GetParam())
          .AddNoise(Goldens().at(key + "original"), Goldens().at(key + "noise"),
                    Goldens().at(key + "timesteps"));
  EXPECT_LE(MaxAbsDiff(noisy, Goldens().at(key + "noisy")), 1e-6);
}

// σ of 50 steps with η = 1 on Stable Diffusion's schedule, and ᾱ_t through the forward process's
// noise level.
TEST(DdimSchedulerTest, HasTheNoiseLevelsOfStableDiffusion) {
  struct Row {
    int64_t timestep;
    double alpha;
    double sigma;
  };
  const Row rows[] = {{981, 0.00577550, 0.45446327},
                      {501, 0.27499907, 0.29478454},
                      {101, 0.89298054, 0.14280856},
                      {21, 0.98038075, 0.03947955},
                      {1, 0.99829603, 0.02064832}};
  const DdimScheduler scheduler = LoadCase("sd15");
  const at::Tensor zeros = at::zeros({1, 1, 1, 1});
  const at::Tensor ones = at::ones({1, 1, 1, 1});
  for (const Row& row : rows) {
    const at::Tensor t = Repeat(row.timestep, 1);
    const double sigma = scheduler.Predict(zeros, zeros, t, 50, 1.0).std.item<double>();
    // ᾱ near 1 has float32's spacing of 6e-8, which the formula's differences magnify.
    EXPECT_NEAR(sigma, row.sigma, 2e-6) << row.timestep;
    const double alpha = std::pow(scheduler.AddNoise(ones, zeros, t).item<double>(), 2);
    // ᾱ is a float32 product of up to 1000 factors.
    EXPECT_NEAR(alpha, row.alpha, 1e-6) << row.timestep;
  }
  EXPECT_EQ(scheduler.Timesteps(50).value().front(), 981);
  EXPECT_EQ(scheduler.Timesteps(50).value().back(), 1);
}

TEST(DdimSchedulerTest, ARowDoesNotDependOnItsNeighbours) {
  const DdimScheduler scheduler = LoadCase("sd15");
  const at::Tensor t = at::tensor({981, 501, 1, 21, 101}, at::kLong);
  const at::Tensor sample = at::randn({5, 4, 8, 8});
  const at::Tensor model_output = at::randn({5, 4, 8, 8});
  const at::Tensor noise = at::randn({5, 4, 8, 8});
  const DdimStep together = scheduler.Step(sample, model_output, t, 50, 1.0, noise);
  for (int64_t i = 0; i < 5; ++i) {
    const auto row = [i](const at::Tensor& tensor) { return tensor.slice(0, i, i + 1); };
    const DdimStep alone =
        scheduler.Step(row(sample), row(model_output), row(t), 50, 1.0, row(noise));
    EXPECT_TRUE(at::equal(alone.prev_sample, row(together.prev_sample))) << i;
    EXPECT_TRUE(at::equal(alone.log_prob, row(together.log_prob))) << i;
  }
}

TEST(DdimSchedulerTest, TheStoredSampleHasExactlyTheLogProbabilityOfItsStep) {
  const DdimScheduler scheduler = LoadCase("v_prediction");
  const at::Tensor t = at::tensor({999, 499, 19}, at::kLong);
  const at::Tensor sample = at::randn({3, 4, 8, 8});
  const at::Tensor model_output = at::randn({3, 4, 8, 8});
  const DdimStep step = scheduler.Step(sample, model_output, t, 50, 1.0, at::randn({3, 4, 8, 8}));
  EXPECT_TRUE(at::equal(scheduler.LogProb(sample, model_output, t, 50, 1.0, step.prev_sample),
                        step.log_prob));
}

// d log p / d ε = (x − μ)/σ² · dμ/dε / n, with dμ/dε from Eq. (12) of DDIM.
TEST(DdimSchedulerTest, TheGradientOfTheLogProbabilityIsTheFormulas) {
  const DdimScheduler scheduler = LoadCase("sd15");
  const at::Tensor sample = at::randn({1, 1, 2, 2});
  const at::Tensor model_output = at::randn({1, 1, 2, 2}).requires_grad_(true);
  const at::Tensor prev_sample = at::randn({1, 1, 2, 2});
  const at::Tensor t = Repeat(501, 1);
  scheduler.LogProb(sample, model_output, t, 50, 1.0, prev_sample).sum().backward();
  const double alpha = 0.27499907;
  const double alpha_prev = 0.30229566;
  const double sigma = 0.29478454;
  const double slope =
      -std::sqrt(alpha_prev * (1 - alpha) / alpha) + std::sqrt(1 - alpha_prev - sigma * sigma);
  const at::Tensor mean = scheduler.Predict(sample, model_output.detach(), t, 50, 1.0).mean;
  const at::Tensor expected = (prev_sample - mean) / (sigma * sigma) * slope / 4;
  EXPECT_LE(MaxAbsDiff(model_output.grad(), expected), 1e-5);
}

// Where the schedule ends at ᾱ = 1 (the case "linear"), diffusers' last step has σ = 0 and no
// density; with η > 0 it ends at ᾱ[0].
TEST(DdimSchedulerTest, AScheduleThatEndsAtOneKeepsAWidthInItsLastStep) {
  const DdimScheduler scheduler = LoadCase("linear");
  const at::Tensor sample = at::randn({2, 4, 2, 2});
  const int64_t last = scheduler.Timesteps(7)->back();
  const DdimStep noisy =
      scheduler.Step(sample, at::randn({2, 4, 2, 2}), Repeat(last + 10, 2), 7, 1.0, sample);
  EXPECT_TRUE(noisy.log_prob.isfinite().all().item<bool>());
  EXPECT_GT(scheduler.Predict(sample, sample, Repeat(last + 10, 2), 7, 1.0).std.min().item<float>(),
            0);
}

TEST(DdimSchedulerTest, AStepWithoutWidthHasLogProbabilityZeroAndNoGradient) {
  const DdimScheduler scheduler = LoadCase("sd15");
  const at::Tensor sample = at::randn({2, 4, 2, 2});
  const at::Tensor model_output = at::randn({2, 4, 2, 2}).requires_grad_(true);
  const at::Tensor log_prob =
      scheduler.LogProb(sample, model_output, Repeat(501, 2), 50, 0.0, at::randn({2, 4, 2, 2}));
  EXPECT_TRUE(at::equal(log_prob, at::zeros({2})));
  log_prob.sum().backward();
  EXPECT_EQ(model_output.grad().abs().max().item<float>(), 0);
}

TEST(DdimSchedulerTest, RefusesNumbersOfStepsThatTheScheduleDoesNotHave) {
  const DdimScheduler scheduler = LoadCase("sd15");
  EXPECT_FALSE(scheduler.Timesteps(0).ok());
  EXPECT_THAT(std::string(scheduler.Timesteps(1001).status().message()),
              HasSubstr("is 1001, expected 1 … 1000"));
  // steps_offset 1 puts the first of 1000 timesteps at 1000.
  EXPECT_THAT(std::string(scheduler.Timesteps(1000).status().message()),
              HasSubstr("starts at timestep 1000, expected at most 999"));
}

// For 61 steps, numpy.arange, which diffusers uses, gives 62 values; the last is timestep −1.
TEST(DdimSchedulerTest, TrailingSpacingHasAsManyTimestepsAsAskedFor) {
  const DdimScheduler scheduler = LoadCase("trailing");
  for (int count = 1; count <= 1000; ++count) {
    const std::vector<int64_t> timesteps = scheduler.Timesteps(count).value();
    ASSERT_EQ(timesteps.size(), static_cast<size_t>(count));
    ASSERT_EQ(timesteps.front(), 999);
    ASSERT_GE(timesteps.back(), 0);
  }
}

}  // namespace
}  // namespace ddpo
