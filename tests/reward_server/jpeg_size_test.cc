#include "reward_server/scorers/jpeg_size.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "common/tensors/jpeg.h"
#include "reward_server/scorer_pool.h"
#include "reward_server/scorers/builtin.h"

namespace ddpo {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// A picture with smooth parts, edges and noise, by a formula that the reference program repeats.
ScoringInput Pattern(int width, int height) {
  ScoringInput input;
  input.image = Image{width, height, {}};
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      for (int64_t c = 0; c < 3; ++c) {
        input.image.rgb.push_back(
            static_cast<uint8_t>((x * x / 7 + y * (11 + c) + x * y / 5 + c * 50) % 256));
      }
    }
  }
  return input;
}

std::unique_ptr<Scorer> Make(const std::string& name) {
  auto registry = BuiltinScorers({});
  auto scorer = registry->Make(name);
  EXPECT_TRUE(scorer.ok()) << scorer.status();
  return *std::move(scorer);
}

TEST(JpegSizeTest, CountsTheBytesThatPillowWrites) {
  // len() of Image.fromarray(pattern).save(buffer, "JPEG", quality=95) with Pillow 13.0.0.
  const struct {
    int width, height, bytes;
  } cases[] = {{1, 1, 634}, {33, 17, 1249}, {64, 48, 3706}, {128, 128, 17602}, {512, 512, 264085}};
  auto scorer = Make("jpeg_compressibility");
  for (const auto& [width, height, bytes] : cases) {
    const auto outcomes = scorer->ScoreBatch({Pattern(width, height)});
    ASSERT_TRUE(outcomes[0].ok()) << outcomes[0].status();
    EXPECT_EQ(outcomes[0]->details.at("bytes"), bytes);
    EXPECT_EQ(outcomes[0]->value, -bytes / 1000.0);
  }
}

TEST(JpegSizeTest, IncompressibilityIsTheNegativeOfCompressibility) {
  const std::vector<ScoringInput> inputs = {Pattern(20, 30), Pattern(50, 10)};
  const auto small = Make("jpeg_compressibility")->ScoreBatch(inputs);
  const auto large = Make("jpeg_incompressibility")->ScoreBatch(inputs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ(small[i]->value, -large[i]->value);
    EXPECT_GT(large[i]->value, 0);
    EXPECT_EQ(large[i]->value * 1000, EncodeJpeg(inputs[i].image, 95)->size());
  }
}

TEST(JpegSizeTest, AnImageThatNoJpegCanHoldFailsAlone) {
  ScoringInput wide;
  wide.image = Image{70000, 1, std::vector<uint8_t>(210000)};
  const auto outcomes = Make("jpeg_compressibility")->ScoreBatch({wide, Pattern(4, 4)});
  EXPECT_EQ(outcomes[0].status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(outcomes[1].ok());
}

TEST(JpegSizeTest, SaysWhatItIs) {
  const auto compress = Make("jpeg_compressibility");
  EXPECT_EQ(compress->info().kind, "jpeg_size");
  EXPECT_EQ(compress->info().max_score, 0);
  EXPECT_FALSE(compress->info().needs_prompt);
  EXPECT_EQ(compress->info().digest.size(), 64u);
  EXPECT_NE(compress->info().digest, Make("jpeg_incompressibility")->info().digest);
  EXPECT_EQ(compress->info().digest, Make("jpeg_compressibility")->info().digest);
}

TEST(ScorerRegistryTest, AnUnknownNameIsAnErrorThatListsTheKnownOnes) {
  const auto scorer = BuiltinScorers({})->Make("beauty");
  EXPECT_EQ(scorer.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(scorer.status().message(),
              AllOf(HasSubstr("'beauty'"), HasSubstr("jpeg_compressibility"),
                    HasSubstr("jpeg_incompressibility")));
}

TEST(ScorerRegistryTest, ANameIsTakenOnce) {
  auto registry = BuiltinScorers({});
  EXPECT_EQ(RegisterJpegSizeScorers(&*registry).code(), absl::StatusCode::kAlreadyExists);
}

TEST(ScorerPoolTest, NeedsNamesThatAreKnownAndNamedOnce) {
  const auto registry = BuiltinScorers({});
  const BatcherOptions options;
  EXPECT_THAT(ScorerPool::Create(*registry, {}, options).status().message(),
              HasSubstr("jpeg_compressibility"));
  EXPECT_EQ(ScorerPool::Create(*registry, {"beauty"}, options).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(ScorerPool::Create(*registry, {"jpeg_compressibility", "jpeg_compressibility"}, options)
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ScorerPoolTest, FindsByNameAndListsTheOthersForAnUnknownOne) {
  auto pool = ScorerPool::Create(*BuiltinScorers({}),
                                 {"jpeg_incompressibility", "jpeg_compressibility"}, {});
  ASSERT_TRUE(pool.ok()) << pool.status();
  EXPECT_EQ((*(*pool)->Find("jpeg_compressibility"))->info().name, "jpeg_compressibility");
  EXPECT_THAT((*pool)->Find("x").status().message(),
              HasSubstr("jpeg_compressibility, jpeg_incompressibility"));
}

}  // namespace
}  // namespace ddpo
