// Scorers that are made of others: weighted sums and the flag for near-constant images.
#include "reward_server/scorers/weighted_sum.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "reward_server/scorers/builtin.h"
#include "reward_server/scorers/near_constant.h"
#include "tests/reward_server/fake_scorer.h"

namespace ddpo {
namespace {

using ::ddpo::testing::FakeScorer;
using ::ddpo::testing::FakeScorerControl;
using ::testing::DoubleNear;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

ScoringInput Input(int width, const std::string& prompt = "") {
  ScoringInput input;
  input.image = {width, 1, std::vector<uint8_t>(3 * static_cast<size_t>(width), 100)};
  input.prompt = prompt;
  return input;
}

std::unique_ptr<Scorer> Named(FakeScorerControl* control, const std::string& name,
                              std::optional<double> low = std::nullopt,
                              std::optional<double> high = std::nullopt) {
  ScorerInfo info = FakeScorer::DefaultInfo();
  info.name = name;
  info.min_score = low;
  info.max_score = high;
  return std::make_unique<FakeScorer>(control, info);
}

std::vector<WeightedPart> Parts(FakeScorerControl* control) {
  std::vector<WeightedPart> parts;
  parts.push_back({Named(control, "a", 0, 10), 2});
  parts.push_back({Named(control, "b", 1, 3), -0.5});
  return parts;
}

TEST(WeightedSumTest, AddsItsPartsAndReportsThem) {
  FakeScorerControl control;
  const auto sum = MakeWeightedSumScorer("mix", Parts(&control));
  const std::vector<ScoringInput> inputs = {Input(4), Input(7)};
  const auto scores = sum->ScoreBatch(inputs);
  ASSERT_EQ(scores.size(), 2);
  EXPECT_EQ(scores[0]->value, 2 * 4 - 0.5 * 4);
  EXPECT_EQ(scores[1]->value, 2 * 7 - 0.5 * 7);
  EXPECT_THAT(scores[1]->details, UnorderedElementsAre(Pair("a.value", 7), Pair("b.value", 7)));
}

TEST(WeightedSumTest, ItsBoundsFollowFromItsParts) {
  FakeScorerControl control;
  const auto sum = MakeWeightedSumScorer("mix", Parts(&control));
  EXPECT_EQ(sum->info().min_score, 2 * 0 - 0.5 * 3);
  EXPECT_EQ(sum->info().max_score, 2 * 10 - 0.5 * 1);
  std::vector<WeightedPart> parts = Parts(&control);
  parts.push_back({Named(&control, "c", 0), 1});
  const auto open = MakeWeightedSumScorer("mix", std::move(parts));
  EXPECT_TRUE(open->info().min_score.has_value());
  EXPECT_FALSE(open->info().max_score.has_value());
}

TEST(WeightedSumTest, AnotherWeightIsAnotherDigest) {
  FakeScorerControl control;
  std::vector<WeightedPart> parts = Parts(&control);
  parts[0].weight = 3;
  EXPECT_NE(MakeWeightedSumScorer("mix", Parts(&control))->info().digest,
            MakeWeightedSumScorer("mix", std::move(parts))->info().digest);
}

TEST(WeightedSumTest, APartsErrorIsTheImagesErrorAndNamesThePart) {
  FakeScorerControl control;
  const auto sum = MakeWeightedSumScorer("mix", Parts(&control));
  const std::vector<ScoringInput> inputs = {Input(4, "fail"), Input(7), Input(1, "short")};
  const auto scores = sum->ScoreBatch(inputs);
  EXPECT_EQ(scores[0].status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(scores[0].status().message(), "a: asked to fail");
  EXPECT_TRUE(scores[1].ok());
  EXPECT_EQ(scores[2].status().code(), absl::StatusCode::kInternal);
}

config::v1::ScoringConfig Sums(
    const std::vector<std::pair<std::string, std::vector<std::string>>>& sums) {
  config::v1::ScoringConfig config;
  for (const auto& [name, scorers] : sums) {
    config::v1::WeightedSumConfig* sum = config.add_sums();
    sum->set_name(name);
    for (const std::string& scorer : scorers) {
      config::v1::WeightedTerm* term = sum->add_terms();
      term->set_scorer(scorer);
      term->set_weight(1);
    }
  }
  return config;
}

TEST(BuiltinScorersTest, ASumMayHoldTheSumsBeforeIt) {
  const auto registry = BuiltinScorers(
      Sums({{"twice", {"jpeg_compressibility", "jpeg_compressibility"}}, {"again", {"twice"}}}));
  ASSERT_TRUE(registry.ok()) << registry.status();
  const auto plain = registry->Make("jpeg_compressibility");
  const auto again = registry->Make("again");
  ASSERT_TRUE(again.ok()) << again.status();
  const ScoringInput input = Input(16);
  const double value = (*plain)->ScoreBatch({input})[0]->value;
  const auto score = (*again)->ScoreBatch({input})[0];
  EXPECT_THAT(score->value, DoubleNear(2 * value, 1e-12));
  EXPECT_EQ(score->details.count("twice.jpeg_compressibility.value"), 1);
}

TEST(BuiltinScorersTest, RefusesSumsThatCannotBe) {
  const auto message = [](const config::v1::ScoringConfig& config) {
    return std::string(BuiltinScorers(config).status().message());
  };
  EXPECT_THAT(message(Sums({{"mix", {}}})), HasSubstr("'mix' has no terms"));
  EXPECT_THAT(message(Sums({{"mix", {"beauty"}}})),
              HasSubstr("'mix' adds 'beauty', which is none of jpeg_compressibility"));
  EXPECT_THAT(message(Sums({{"mix", {"mix"}}})), HasSubstr("'mix' adds 'mix'"));
  EXPECT_THAT(message(Sums({{"jpeg_compressibility", {"jpeg_incompressibility"}}})),
              HasSubstr("has the name of another scorer"));
}

TEST(NearConstantTest, ComparesTheLargestChannelsDeviation) {
  EXPECT_TRUE(IsNearConstant({}, 1));
  EXPECT_TRUE(IsNearConstant({2, 1, {10, 20, 30, 10, 20, 30}}, 1e-6));
  // Of the second channel: 127.5.
  const Image two_pixels = {2, 1, {10, 0, 30, 10, 255, 30}};
  EXPECT_FALSE(IsNearConstant(two_pixels, 127.5));
  EXPECT_TRUE(IsNearConstant(two_pixels, 127.6));
}

TEST(NearConstantTest, LooksAtEveryPixel) {
  Image image{100, 100, std::vector<uint8_t>(30000, 7)};
  EXPECT_TRUE(IsNearConstant(image, 2));
  // The last 100 of 10,000 pixels: the deviation is √(0.01 · 0.99) · 200 = 19.9.
  std::fill(image.rgb.end() - 300, image.rgb.end(), 207);
  EXPECT_FALSE(IsNearConstant(image, 19));
  EXPECT_TRUE(IsNearConstant(image, 20));
}

TEST(NearConstantTest, FlagsImagesBelowTheThreshold) {
  config::v1::ScoringConfig config;
  config.set_near_constant_std(2);
  const auto registry = BuiltinScorers(config);
  const auto scorer = registry->Make("jpeg_compressibility");
  ScoringInput black = Input(16);
  ScoringInput lively = Input(16);
  for (size_t i = 0; i < lively.image.rgb.size(); i += 2) lively.image.rgb[i] = 200;
  const std::vector<ScoringInput> inputs = {black, lively};
  const auto scores = (*scorer)->ScoreBatch(inputs);
  EXPECT_EQ(scores[0]->details.at("near_constant"), 1);
  EXPECT_EQ(scores[1]->details.at("near_constant"), 0);
}

}  // namespace
}  // namespace ddpo
