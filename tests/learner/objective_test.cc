#include "learner/objective.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace ddpo {
namespace {

using ::testing::HasSubstr;

// Four samples whose policy has moved by the given log-ratios.
class ObjectiveTest : public ::testing::Test {
 protected:
  ObjectiveTest()
      : scheduler_(DdimConfig{.beta_start = 0.00085,
                              .beta_end = 0.012,
                              .beta_schedule = "scaled_linear",
                              .set_alpha_to_one = false,
                              .steps_offset = 1}) {
    options_.clip_range = 0.1;
    options_.adv_clip = 5.0;
    unit_.latents = at::randn({4, 4, 2, 2});
    unit_.target = at::randn({4, 4, 2, 2});
    unit_.timesteps = at::tensor({981, 501, 101, 1}, at::kLong);
    model_output_ = at::randn({4, 4, 2, 2}).requires_grad_(true);
  }

  UnitLoss Loss(std::string name, const std::vector<double>& advantages,
                const std::vector<double>& log_ratios) {
    options_.name = std::move(name);
    log_prob_ = scheduler_.LogProb(unit_.latents, model_output_.detach(), unit_.timesteps,
                                   options_.num_steps, options_.eta, unit_.target);
    unit_.log_probs = log_prob_ - at::tensor(log_ratios, at::kFloat);
    unit_.weights = at::tensor(advantages, at::kFloat);
    return CreateObjective(options_, scheduler_).value()->Loss(unit_, model_output_);
  }

  // Whether the loss moves sample `row`.
  bool HasGradient(const UnitLoss& loss, int64_t row) {
    if (model_output_.grad().defined()) model_output_.mutable_grad().zero_();
    loss.loss.backward({}, /*retain_graph=*/true);
    return model_output_.grad()[row].abs().max().item<float>() > 0;
  }

  const DdimScheduler scheduler_;
  ObjectiveOptions options_;
  TrainingUnit unit_;
  at::Tensor model_output_;
  at::Tensor log_prob_;
};

// Log-probabilities at small σ are some hundreds, so that a log-ratio has an error of 1e-4 of
// float32.
constexpr double kTolerance = 1e-3;

TEST_F(ObjectiveTest, DdpoIsTakesTheWorseOfThePlainAndTheClippedRatio) {
  // In turn: ratio above the range with A > 0 (clipped) and A < 0 (not), below it with A > 0 (not)
  // and A < 0 (clipped).
  const UnitLoss loss =
      Loss("ddpo_is", {2, -2, 2, -2}, {std::log(1.5), std::log(1.5), std::log(0.5), std::log(0.5)});
  EXPECT_NEAR(loss.loss.item<double>(), (-2 * 1.1 + 2 * 1.5 - 2 * 0.5 + 2 * 0.9) / 4, kTolerance);
  EXPECT_EQ(loss.clip_fraction, 1);
  EXPECT_FALSE(HasGradient(loss, 0));
  EXPECT_TRUE(HasGradient(loss, 1));
  EXPECT_TRUE(HasGradient(loss, 2));
  EXPECT_FALSE(HasGradient(loss, 3));
}

TEST_F(ObjectiveTest, DdpoIsAtTheSamplingPolicyIsThePolicyGradient) {
  const UnitLoss loss = Loss("ddpo_is", {1, -2, 0.5, 3}, {0, 0, 0, 0});
  EXPECT_NEAR(loss.loss.item<double>(), -(1 - 2 + 0.5 + 3) / 4, 1e-6);
  EXPECT_EQ(loss.clip_fraction, 0);
  EXPECT_EQ(loss.log_ratio.abs().max().item<float>(), 0);
  loss.loss.backward();
  const at::Tensor gradient = model_output_.grad().clone();
  model_output_.mutable_grad().zero_();
  Loss("ddpo_sf", {1, -2, 0.5, 3}, {0, 0, 0, 0}).loss.backward();
  // Its gradient there is that of the score function.
  EXPECT_LE((gradient - model_output_.grad()).abs().max().item<double>(),
            1e-6 * gradient.abs().max().item<double>());
}

TEST_F(ObjectiveTest, AdvantagesAreClampedToTheirClip) {
  options_.adv_clip = 1.5;
  EXPECT_NEAR(Loss("ddpo_is", {9, -9, 1, 0}, {0, 0, 0, 0}).loss.item<double>(),
              -(1.5 - 1.5 + 1) / 4, 1e-6);
}

TEST_F(ObjectiveTest, DdpoSfWeighsTheLogProbability) {
  const UnitLoss loss = Loss("ddpo_sf", {1, 0, 0, 0}, {0.3, 0, 0, 0});
  EXPECT_NEAR(loss.loss.item<double>(), -log_prob_[0].item<double>() / 4, kTolerance);
  EXPECT_EQ(loss.clip_fraction, 0.25);
}

TEST_F(ObjectiveTest, KlToTheBaseModelIsThatOfTheStepsGaussians) {
  unit_.reference_output = model_output_.detach() + 0.01;
  const double plain = Loss("ddpo_sf", {1, -1, 1, -1}, {0, 0, 0, 0}).loss.item<double>();
  options_.kl_coefficient = 0.5;
  for (const char* name : {"ddpo_is", "ddpo_sf"}) {
    EXPECT_TRUE(CreateObjective(options_, scheduler_).value()->NeedsReference());
    const auto step = [&](const at::Tensor& output) {
      return scheduler_.Predict(unit_.latents, output, unit_.timesteps, options_.num_steps,
                                options_.eta);
    };
    const auto policy = step(model_output_.detach());
    const double kl =
        ((policy.mean - step(unit_.reference_output).mean).square() / (2 * policy.std.square()))
            .mean()
            .item<double>();
    const UnitLoss loss = Loss(name, {1, -1, 1, -1}, {0, 0, 0, 0});
    EXPECT_GT(kl, 0);
    EXPECT_NEAR(loss.reference_kl, kl, 1e-6 * kl);
    if (options_.name == "ddpo_sf") {
      EXPECT_NEAR(loss.loss.item<double>(), plain + 0.5 * kl, kTolerance);
    }
  }
}

TEST_F(ObjectiveTest, DecoupledClipsAroundTheStartAndTruncatesTheBehaviourWeight) {
  options_.max_behaviour_weight = 1.25;
  // π / π_old = 1.5 throughout; π_start / π_old in turn 1 (as old), 1.2, 1.5 (as new) and 0.5.
  const std::vector<double> start = {1, 1.2, 1.5, 0.5};
  std::vector<double> log_ratios(4, std::log(1.5));
  Loss("ddpo_is", {1, 1, 1, 1}, log_ratios);
  std::vector<double> shifts;
  for (const double ratio : start) shifts.push_back(std::log(ratio));
  unit_.start_log_probs = unit_.log_probs + at::tensor(shifts, at::kFloat);
  options_.decoupled = true;
  const UnitLoss loss = CreateObjective(options_, scheduler_).value()->Loss(unit_, model_output_);
  // Weight · ratio clipped to 1.1: 1 · 1.1, 1.2 · 1.1 (ratio 1.25), 1.25 · 1, 0.5 · 1.1 (ratio 3).
  EXPECT_NEAR(loss.loss.item<double>(), -(1.1 + 1.32 + 1.25 + 0.55) / 4, kTolerance);
  EXPECT_EQ(loss.clip_fraction, 0.75);
  EXPECT_FALSE(HasGradient(loss, 0));
  EXPECT_TRUE(HasGradient(loss, 2));
}

TEST_F(ObjectiveTest, RwrWeighsTheSquaredErrors) {
  const UnitLoss loss = Loss("rwr", {2, 0, 0, 1}, {0, 0, 0, 0});
  const at::Tensor errors = (model_output_.detach() - unit_.target).square().mean({1, 2, 3});
  EXPECT_NEAR(loss.loss.item<double>(),
              (2 * errors[0].item<double>() + errors[3].item<double>()) / 4, 1e-6);
  EXPECT_FALSE(loss.log_ratio.defined());
}

TEST_F(ObjectiveTest, AnUnknownNameIsAnError) {
  options_.name = "ddpo";
  EXPECT_THAT(std::string(CreateObjective(options_, scheduler_).status().message()),
              HasSubstr("“ddpo”, expected ddpo_is, ddpo_sf, rwr or rwr_sparse"));
}

}  // namespace
}  // namespace ddpo
