#include "reward_server/scorers/aesthetic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "reward_server/scorers/builtin.h"
#include "tests/testing/copied_folder.h"
#include "tests/testing/golden_fixture.h"
#include "tests/testing/image_tensor.h"
#include "tests/testing/paths.h"

namespace ddpo {
namespace {

using ::ddpo::testing::CopiedFolder;
using ::ddpo::testing::GoldenFixture;
using ::ddpo::testing::ImagesOf;
using ::ddpo::testing::ReadGoldenFixture;
using ::ddpo::testing::SourcePath;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kSafetensors[] = "aesthetic_head.safetensors";
constexpr char kArchive[] = "aesthetic_head.pth";

// Two float32 computations in different orders, on scores below 1.
constexpr double kTolerance = 1e-5;

std::string ModelDir(const std::string& name) {
  return SourcePath("tests/goldens/clip_vision/" + name);
}

absl::StatusOr<std::unique_ptr<Scorer>> Make(const std::string& clip, const std::string& head) {
  return MakeAestheticScorer({.clip = clip, .head = head});
}

std::string DigestOf(const std::string& clip, const std::string& head) {
  const auto scorer = Make(clip, head);
  EXPECT_TRUE(scorer.ok()) << scorer.status();
  return scorer.ok() ? (*scorer)->info().digest : "";
}

std::vector<ScoringInput> InputsOf(const GoldenFixture& golden) {
  std::vector<ScoringInput> inputs;
  for (Image& image : ImagesOf(golden.in.at("images"))) {
    inputs.emplace_back().image = std::move(image);
  }
  return inputs;
}

class AestheticGoldenTest : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Fixtures, AestheticGoldenTest,
                         ::testing::Values("both_towers_aesthetic_pth_50x75",
                                           "both_towers_aesthetic_safetensors_7x9",
                                           "vision_only_aesthetic_pth_50x75",
                                           "vision_only_aesthetic_safetensors_7x9"),
                         [](const auto& test) { return test.param; });

TEST_P(AestheticGoldenTest, ScoresAsTransformersAndTheOriginalHeadDo) {
  const GoldenFixture golden = ReadGoldenFixture("clip_vision/" + GetParam() + ".safetensors");
  const std::string model = GetParam().substr(0, GetParam().find("_aesthetic"));
  const auto scorer = Make(ModelDir(model), golden.params.at("head"));
  ASSERT_TRUE(scorer.ok()) << scorer.status();
  const auto outcomes = (*scorer)->ScoreBatch(InputsOf(golden));
  const at::Tensor expected = golden.out.at("score");
  ASSERT_EQ(outcomes.size(), static_cast<size_t>(expected.size(0)));
  for (size_t i = 0; i < outcomes.size(); ++i) {
    ASSERT_TRUE(outcomes[i].ok()) << outcomes[i].status();
    EXPECT_NEAR(outcomes[i]->value, expected[static_cast<int64_t>(i)].item<double>(), kTolerance);
  }
}

TEST(AestheticScorerTest, ScoresTheOthersWhereOneImageCannotBe) {
  const GoldenFixture golden =
      ReadGoldenFixture("clip_vision/both_towers_aesthetic_pth_50x75.safetensors");
  const auto scorer = Make(ModelDir("both_towers"), kArchive);
  ASSERT_TRUE(scorer.ok()) << scorer.status();
  std::vector<ScoringInput> inputs = InputsOf(golden);
  inputs[1].image = Image{};
  const auto outcomes = (*scorer)->ScoreBatch(inputs);
  ASSERT_EQ(outcomes.size(), 3u);
  EXPECT_EQ(outcomes[1].status().code(), absl::StatusCode::kInvalidArgument);
  for (const size_t i : {0, 2}) {
    ASSERT_TRUE(outcomes[i].ok()) << outcomes[i].status();
    EXPECT_NEAR(outcomes[i]->value, golden.out.at("score")[static_cast<int64_t>(i)].item<double>(),
                kTolerance);
  }
}

TEST(AestheticScorerTest, AnImagesScoreIsTheSameBitsInEveryBatch) {
  const auto scorer = Make("assets/models/emoji-clip", kSafetensors);
  ASSERT_TRUE(scorer.ok()) << scorer.status();
  std::vector<ScoringInput> inputs;
  std::mt19937 random(1);
  for (int i = 0; i < 32; ++i) {
    inputs.emplace_back().image = Image{32, 32, std::vector<uint8_t>(32 * 32 * 3)};
    for (uint8_t& value : inputs.back().image.rgb) value = static_cast<uint8_t>(random());
  }
  const auto together = (*scorer)->ScoreBatch(inputs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ(together[i].value().value, (*scorer)->ScoreBatch({inputs[i]})[0].value().value) << i;
  }
}

TEST(AestheticScorerTest, HasAnotherDigestForOtherWeightsHeadsAndPixels) {
  const CopiedFolder dir(ModelDir("both_towers"));
  const std::string digest = DigestOf(dir.path(), kSafetensors);
  EXPECT_EQ(digest.size(), 64u);
  EXPECT_EQ(digest, DigestOf(ModelDir("both_towers"), kSafetensors)) << "of another place";
  EXPECT_NE(digest, DigestOf(dir.path(), kArchive));
  dir.ChangeTensors(kSafetensors, [](NamedTensors& tensors) {
    tensors["layers.7.bias"] = tensors["layers.7.bias"] + 1;
  });
  const std::string other_head = DigestOf(dir.path(), kSafetensors);
  EXPECT_NE(other_head, digest);
  dir.SetJson("preprocessor_config.json", "image_mean", 0.5);
  const std::string other_pixels = DigestOf(dir.path(), kSafetensors);
  EXPECT_NE(other_pixels, other_head);
  dir.ChangeTensors("model.safetensors", [](NamedTensors& tensors) {
    tensors["visual_projection.weight"] = tensors["visual_projection.weight"] * 2;
  });
  EXPECT_NE(DigestOf(dir.path(), kSafetensors), other_pixels);
}

TEST(AestheticScorerTest, TakesAHeadFromElsewhere) {
  const CopiedFolder dir(ModelDir("both_towers"));
  const CopiedFolder elsewhere(ModelDir("both_towers"));
  std::filesystem::remove(dir / kArchive);
  EXPECT_TRUE(Make(dir.path(), elsewhere / kArchive).ok());
}

TEST(AestheticScorerTest, SaysWhichFileIsMissing) {
  const CopiedFolder dir(ModelDir("both_towers"));
  EXPECT_THAT(std::string(Make(dir.path(), "no_head.pth").status().message()),
              AllOf(HasSubstr("no_head.pth"), HasSubstr(dir.path())));
  std::filesystem::remove(dir / "preprocessor_config.json");
  EXPECT_THAT(std::string(Make(dir.path(), kArchive).status().message()),
              HasSubstr(dir / "preprocessor_config.json"));
  EXPECT_THAT(std::string(Make("/nowhere/clip", kArchive).status().message()),
              HasSubstr("/nowhere/clip"));
}

TEST(AestheticScorerTest, RefusesAHeadOfAnotherClip) {
  EXPECT_THAT(std::string(Make(ModelDir("vision_only"), ModelDir("both_towers") + "/" + kArchive)
                              .status()
                              .message()),
              AllOf(HasSubstr("layers.0.weight"), HasSubstr("[32,24]"), HasSubstr("[any,40]")));
}

TEST(AestheticScorerTest, IsThereWhereAClipIsConfigured) {
  config::v1::ScoringConfig config;
  config.set_dtype("float32");
  config.set_device("cpu");
  EXPECT_THAT(BuiltinScorers(config)->Names(), Not(Contains("aesthetic")));
  config.mutable_aesthetic()->set_clip(ModelDir("vision_only"));
  config.mutable_aesthetic()->set_head(kArchive);
  const absl::StatusOr<ScorerRegistry> registry = BuiltinScorers(config);
  ASSERT_TRUE(registry.ok()) << registry.status();
  const auto scorer = registry->Make("aesthetic");
  ASSERT_TRUE(scorer.ok()) << scorer.status();
  EXPECT_EQ((*scorer)->info().kind, "aesthetic");
  EXPECT_FALSE((*scorer)->info().needs_prompt);
}

}  // namespace
}  // namespace ddpo
