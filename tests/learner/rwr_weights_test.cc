#include "learner/rwr_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

namespace ddpo {
namespace {

using ::testing::DoubleNear;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<double> Weigh(SampleWeighting& weighting, const std::vector<std::string>& prompts,
                          const std::vector<double>& rewards) {
  return weighting.Update(prompts, rewards).value();
}

TEST(RwrWeightsTest, AreTheSoftmaxOfTheRewardsTimesTheirNumber) {
  const auto weighting = CreateRwrWeighting({.beta = 0.2});
  const double a = std::exp(0.2 * 1), b = std::exp(0.2 * -2), c = std::exp(0.2 * 4);
  const double scale = 3 / (a + b + c);
  EXPECT_THAT(Weigh(*weighting, {"cat", "ant", "cat"}, {1, -2, 4}),
              ElementsAre(DoubleNear(scale * a, 1e-12), DoubleNear(scale * b, 1e-12),
                          DoubleNear(scale * c, 1e-12)));
}

TEST(RwrWeightsTest, DoNotOverflowForLargeRewards) {
  const auto weighting = CreateRwrWeighting({.beta = 0.2});
  EXPECT_THAT(Weigh(*weighting, {"cat", "cat"}, {1e6, 1e6}), Each(1));
  EXPECT_THAT(Weigh(*weighting, {"cat", "cat"}, {-1e6, 1e6}), ElementsAre(0, 2));
}

TEST(RwrWeightsTest, MayWeighEachPromptByItself) {
  const auto weighting = CreateRwrWeighting({.beta = 1, .per_prompt = true});
  const double e = std::exp(1);
  EXPECT_THAT(
      Weigh(*weighting, {"cat", "ant", "cat", "ant"}, {1, 7, 0, 7}),
      ElementsAre(DoubleNear(2 * e / (1 + e), 1e-12), 1, DoubleNear(2 / (1 + e), 1e-12), 1));
}

TEST(SparseRwrWeightsTest, KeepWhatReachesThePercentile) {
  const auto weighting = CreateSparseRwrWeighting({});
  std::vector<double> rewards(21);
  std::iota(rewards.begin(), rewards.end(), 0);
  // numpy.percentile(range(21), 90) = 18.
  std::vector<double> expected(21, 0);
  expected[18] = expected[19] = expected[20] = 1;
  EXPECT_EQ(Weigh(*weighting, std::vector<std::string>(21, "cat"), rewards), expected);
}

TEST(SparseRwrWeightsTest, InterpolateThePercentileBetweenRewards) {
  const auto weighting = CreateSparseRwrWeighting({.percentile = 50});
  // numpy.percentile([1, 2, 4, 8], 50) = 3.
  EXPECT_THAT(Weigh(*weighting, std::vector<std::string>(4, "cat"), {4, 1, 8, 2}),
              ElementsAre(1, 0, 1, 0));
}

TEST(SparseRwrWeightsTest, KeepAtMostTheBestSoMany) {
  const auto weighting = CreateSparseRwrWeighting({.percentile = 0, .max_samples = 2});
  EXPECT_THAT(Weigh(*weighting, std::vector<std::string>(4, "cat"), {3, 9, 3, 1}),
              ElementsAre(1, 1, 0, 0));
}

TEST(SparseRwrWeightsTest, KeepAllOfEqualRewards) {
  const auto weighting = CreateSparseRwrWeighting({});
  EXPECT_THAT(Weigh(*weighting, std::vector<std::string>(3, "cat"), {0.1, 0.1, 0.1}), Each(1));
}

TEST(RwrWeightsTest, RefuseRewardsThatAreNotNumbers) {
  for (const auto& weighting : {CreateRwrWeighting({}), CreateSparseRwrWeighting({})}) {
    const std::vector<std::string> prompts = {"cat", "ant"};
    const std::vector<double> rewards = {1, std::numeric_limits<double>::quiet_NaN()};
    EXPECT_THAT(std::string(weighting->Update(prompts, rewards).status().message()),
                HasSubstr("the reward of sample 1 (“ant”) is nan"));
    EXPECT_FALSE(weighting->Update(prompts, std::vector<double>{1}).ok());
  }
}

TEST(RwrWeightsTest, HaveNoState) {
  for (const auto& weighting : {CreateRwrWeighting({}), CreateSparseRwrWeighting({})}) {
    EXPECT_TRUE(weighting->RestoreState(weighting->SerializeState()).ok());
    EXPECT_FALSE(weighting->RestoreState(R"({"a cat":[1]})").ok());
  }
}

}  // namespace
}  // namespace ddpo
