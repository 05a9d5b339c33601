#include "learner/advantages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace ddpo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pointwise;

PromptStatistics MakeStatistics(const AdvantageOptions& options) {
  return *PromptStatistics::Create(options);
}

std::vector<double> Update(PromptStatistics& statistics, const std::vector<std::string>& prompts,
                           const std::vector<double>& rewards) {
  return *statistics.Update(prompts, rewards);
}

// Only the order of additions differs from numpy.
testing::Matcher<std::vector<double>> IsNear(const std::vector<double>& expected) {
  return Pointwise(testing::DoubleNear(1e-12), expected);
}

// Expected values: ddpo-pytorch's PerPromptStatTracker(buffer_size=3, min_count=2), clamped to ±5.
TEST(PromptStatisticsTest, NormalisesByTheBufferOncePromptsHaveEnoughRewards) {
  PromptStatistics statistics = MakeStatistics({.buffer_size = 3, .min_count = 2, .clip = 5.0});
  // "ant" has one reward: it is normalised by the whole epoch.
  const double epoch_mean = (1.0 + 3.0 + 6.0) / 3;
  const double epoch_std = std::sqrt(
      (std::pow(1 - epoch_mean, 2) + std::pow(3 - epoch_mean, 2) + std::pow(6 - epoch_mean, 2)) /
      3);
  EXPECT_THAT(Update(statistics, {"cat", "cat", "ant"}, {1, 3, 6}),
              IsNear({-1 / (1 + 1e-6), 1 / (1 + 1e-6), (6 - epoch_mean) / (epoch_std + 1e-6)}));
  // The buffer of "cat" is now [3, 5, 4] (the 1 has left), of "ant" [6, 8].
  const double cat_std = std::sqrt(2.0 / 3);
  EXPECT_THAT(Update(statistics, {"cat", "ant", "cat"}, {5, 8, 4}),
              IsNear({1 / (cat_std + 1e-6), 1 / (1 + 1e-6), 0}));
}

TEST(PromptStatisticsTest, EqualRewardsHaveNoAdvantage) {
  PromptStatistics statistics = MakeStatistics({.buffer_size = 4, .min_count = 2, .clip = 5.0});
  EXPECT_THAT(Update(statistics, {"cat", "cat"}, {7, 7}), ElementsAre(0, 0));
}

TEST(PromptStatisticsTest, ClampsAdvantagesToTheClip) {
  PromptStatistics statistics = MakeStatistics({.buffer_size = 64, .min_count = 64, .clip = 2.0});
  std::vector<std::string> prompts(40, "cat");
  std::vector<double> rewards(40, 0);
  rewards[3] = 1;
  rewards[4] = -1;
  const std::vector<double> advantages = Update(statistics, prompts, rewards);
  EXPECT_EQ(advantages[3], 2);
  EXPECT_EQ(advantages[4], -2);
}

TEST(PromptStatisticsTest, RefusesRewardsThatAreNotNumbersAndForgetsTheWholeCall) {
  PromptStatistics statistics = MakeStatistics({});
  const std::string before = statistics.SerializeState();
  const auto result =
      statistics.Update(std::vector<std::string>{"cat", "ant"},
                        std::vector<double>{1, std::numeric_limits<double>::quiet_NaN()});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("sample 1 (“ant”) is nan"));
  EXPECT_EQ(statistics.SerializeState(), before);
  EXPECT_FALSE(statistics.Update(std::vector<std::string>{"cat"}, {}).ok());
}

TEST(PromptStatisticsTest, RefusesOptionsOutOfRange) {
  EXPECT_FALSE(PromptStatistics::Create({.buffer_size = 0}).ok());
  EXPECT_FALSE(PromptStatistics::Create({.min_count = 0}).ok());
  EXPECT_FALSE(PromptStatistics::Create({.clip = 0}).ok());
}

TEST(PromptStatisticsTest, GoesOnFromARestoredStateWithTheSameBits) {
  const AdvantageOptions options{.buffer_size = 5, .min_count = 3, .clip = 5.0};
  PromptStatistics original = MakeStatistics(options);
  const std::vector<std::string> prompts = {"cat", "ant", "“two” wolves", "cat"};
  Update(original, prompts, {0.1, 1.0 / 3, -2e-300, 1e17});
  PromptStatistics restored = MakeStatistics(options);
  Update(restored, {"dog"}, {4});
  ASSERT_TRUE(restored.RestoreState(original.SerializeState()).ok());
  EXPECT_EQ(restored.SerializeState(), original.SerializeState());
  EXPECT_EQ(Update(restored, prompts, {0.7, 0.2, 0.3, 0.4}),
            Update(original, prompts, {0.7, 0.2, 0.3, 0.4}));
}

TEST(PromptStatisticsTest, RefusesADamagedStateAndKeepsItsOwn) {
  PromptStatistics statistics = MakeStatistics({});
  Update(statistics, {"cat"}, {1});
  const std::string before = statistics.SerializeState();
  for (const char* damaged : {"", "[]", "{\"rewards\": 3}", "{\"rewards\": {\"cat\": [\"x\"]}}",
                              "{\"rewards\": {\"cat\": 1}}", "{\"rewards\": {"}) {
    EXPECT_EQ(statistics.RestoreState(damaged).code(), absl::StatusCode::kInvalidArgument)
        << damaged;
  }
  EXPECT_EQ(statistics.SerializeState(), before);
}

}  // namespace
}  // namespace ddpo
