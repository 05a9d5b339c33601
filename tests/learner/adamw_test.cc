#include "learner/adamw.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace ddpo {
namespace {

using ::testing::HasSubstr;

NamedTensors MakeParameters() {
  return {{"a", at::tensor({1.0, -2.0, 3.0}, at::kFloat).view({1, 3})},
          {"b", at::tensor({0.5}, at::kFloat)}};
}

NamedTensors Gradient(double scale) {
  return {{"a", scale * at::tensor({0.1, 0.2, -0.3}, at::kFloat).view({1, 3})},
          {"b", scale * at::tensor({4.0}, at::kFloat)}};
}

// Algorithm 2 of arXiv 1711.05101, by hand.
TEST(AdamWTest, StepsByTheFormulaWithDecoupledWeightDecay) {
  const AdamWOptions options{
      .learning_rate = 0.1, .beta1 = 0.8, .beta2 = 0.9, .epsilon = 1e-3, .weight_decay = 0.05};
  NamedTensors parameters = MakeParameters();
  AdamW optimizer(parameters, options);
  double expected = 0.5;
  double first = 0;
  double second = 0;
  for (int step = 1; step <= 3; ++step) {
    const double gradient = 4.0 * step;
    optimizer.Step(Gradient(step));
    first = 0.8 * first + 0.2 * gradient;
    second = 0.9 * second + 0.1 * gradient * gradient;
    expected *= 1 - 0.1 * 0.05;
    expected -= 0.1 * (first / (1 - std::pow(0.8, step))) /
                (std::sqrt(second / (1 - std::pow(0.9, step))) + 1e-3);
    EXPECT_NEAR(parameters.at("b").item<double>(), expected, 1e-6) << step;
  }
}

TEST(AdamWTest, GoesOnFromARestoredStateWithTheSameBits) {
  NamedTensors parameters = MakeParameters();
  AdamW optimizer(parameters, AdamWOptions());
  optimizer.Step(Gradient(1));
  optimizer.Step(Gradient(-0.3));
  NamedTensors copies;
  for (const auto& [name, tensor] : parameters) copies[name] = tensor.clone();
  AdamW resumed(copies, AdamWOptions());
  ASSERT_TRUE(resumed.Restore(optimizer.State()).ok());
  optimizer.Step(Gradient(0.7));
  resumed.Step(Gradient(0.7));
  EXPECT_TRUE(at::equal(parameters.at("a"), copies.at("a")));
  EXPECT_TRUE(at::equal(parameters.at("b"), copies.at("b")));
  for (const auto& [name, tensor] : optimizer.State()) {
    EXPECT_TRUE(at::equal(tensor, resumed.State().at(name))) << name;
  }
}

TEST(AdamWTest, TheStateBeforeTheFirstStepIsEmptyAndRestorable) {
  const NamedTensors parameters = MakeParameters();
  AdamW optimizer(parameters, AdamWOptions());
  EXPECT_TRUE(optimizer.State().empty());
  optimizer.Step(Gradient(1));
  EXPECT_EQ(optimizer.State().at("step").item<int64_t>(), 1);
  EXPECT_TRUE(optimizer.Restore({}).ok());
  EXPECT_TRUE(optimizer.State().empty());
}

TEST(AdamWTest, RefusesAStateThatDoesNotFitAndKeepsItsOwn) {
  const NamedTensors parameters = MakeParameters();
  AdamW optimizer(parameters, AdamWOptions());
  optimizer.Step(Gradient(1));
  NamedTensors state = optimizer.State();
  state["exp_avg_sq.b"] = at::zeros({2});
  EXPECT_THAT(std::string(optimizer.Restore(state).message()),
              HasSubstr("exp_avg_sq.b has shape [2], expected [1]"));
  state.erase("exp_avg.a");
  EXPECT_THAT(std::string(optimizer.Restore(state).message()), HasSubstr("no tensor exp_avg.a"));
  EXPECT_EQ(optimizer.State().at("step").item<int64_t>(), 1);
}

}  // namespace
}  // namespace ddpo
