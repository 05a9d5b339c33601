#include "reward_server/scoring_item.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "common/tensors/jpeg.h"
#include "common/tensors/png.h"

namespace ddpo {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMaxPixels = 10000;

Image Checkers(int width, int height) {
  Image image{width, height, {}};
  for (int i = 0; i < width * height * 3; ++i) image.rgb.push_back(static_cast<uint8_t>(i * 37));
  return image;
}

std::string ToString(const std::vector<uint8_t>& bytes) {
  return std::string(bytes.begin(), bytes.end());
}
std::string Jpeg(int width, int height) {
  return ToString(*EncodeJpeg(Checkers(width, height), 95));
}
std::string Png(int width, int height) { return ToString(*EncodePng(Checkers(width, height))); }

reward::v1::ScoreItem Encoded(const std::string& bytes) {
  reward::v1::ScoreItem item;
  item.mutable_image()->set_encoded(bytes);
  return item;
}

reward::v1::ScoreItem Raw(uint32_t width, uint32_t height, size_t bytes) {
  reward::v1::ScoreItem item;
  item.mutable_image()->mutable_raw()->set_width(width);
  item.mutable_image()->mutable_raw()->set_height(height);
  item.mutable_image()->mutable_raw()->set_rgb(std::string(bytes, 'x'));
  return item;
}

// A PNG header of the size; the data that would follow is not there.
std::string PngHeader(uint32_t width, uint32_t height) {
  std::string png = Png(2, 2);
  for (int i = 0; i < 4; ++i) {
    png[16 + i] = static_cast<char>(width >> (24 - 8 * i));
    png[20 + i] = static_cast<char>(height >> (24 - 8 * i));
  }
  // CRC-32 of the chunk.
  uint32_t crc = 0xffffffff;
  for (int i = 12; i < 29; ++i) {
    crc ^= static_cast<uint8_t>(png[i]);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xedb88320u : 0);
  }
  crc = ~crc;
  for (int i = 0; i < 4; ++i) png[29 + i] = static_cast<char>(crc >> (24 - 8 * i));
  return png;
}

// The item's error as the caller sees it: "REASON: message"; empty for an image that was taken.
std::string Error(const reward::v1::ScoreItem& item, bool needs_prompt = false) {
  ScorerInfo info;
  info.name = "s";
  info.needs_prompt = needs_prompt;
  const auto input = ToScoringInput(item, info, kMaxPixels);
  if (input.ok()) return "";
  reward::v1::ScoreResult result;
  SetOutcome(input.status(), &result);
  EXPECT_FALSE(result.has_score());
  EXPECT_EQ(result.error().code(), static_cast<int>(absl::StatusCode::kInvalidArgument));
  return result.error().reason() + ": " + result.error().message();
}

TEST(ScoringItemTest, DecodesWhatItTakes) {
  ScorerInfo info;
  reward::v1::ScoreItem item = Encoded(Png(30, 20));
  item.set_prompt("a cat");
  (*item.mutable_metadata())["k"] = "v";
  const auto input = ToScoringInput(item, info, kMaxPixels);
  ASSERT_TRUE(input.ok()) << input.status();
  EXPECT_EQ(input->image.rgb, Checkers(30, 20).rgb);
  EXPECT_EQ(input->prompt, "a cat");
  EXPECT_EQ(input->metadata.at("k"), "v");
  EXPECT_EQ(Error(Encoded(Jpeg(30, 20))), "");
  EXPECT_EQ(Error(Raw(100, 100, 30000)), "");
}

TEST(ScoringItemTest, RefusesAnItemWithoutAnImage) {
  EXPECT_THAT(Error({}), HasSubstr("IMAGE_MISSING"));
  EXPECT_THAT(Error(Encoded("")), HasSubstr("IMAGE_MISSING: the image has 0 bytes"));
  EXPECT_THAT(Error(Raw(0, 0, 0)), HasSubstr("IMAGE_MISSING"));
  EXPECT_THAT(Error(Raw(5, 0, 0)), HasSubstr("IMAGE_MISSING"));
}

TEST(ScoringItemTest, RefusesRawBytesThatDoNotFitTheSize) {
  EXPECT_THAT(Error(Raw(10, 10, 299)),
              HasSubstr("IMAGE_SIZE_MISMATCH: rgb has 299 bytes, 10 × 10 × 3 are 300"));
}

TEST(ScoringItemTest, RefusesAnImageThatIsTooLargeByItsHeader) {
  EXPECT_THAT(Error(Raw(4294967295u, 4294967295u, 3)), HasSubstr("IMAGE_TOO_LARGE"));
  EXPECT_THAT(Error(Raw(101, 100, 30300)), HasSubstr("IMAGE_TOO_LARGE"));
  EXPECT_THAT(Error(Encoded(PngHeader(50000, 50000))),
              HasSubstr("IMAGE_TOO_LARGE: an image of 50000 × 50000 pixels"));
  EXPECT_THAT(Error(Encoded(Jpeg(101, 100))), HasSubstr("IMAGE_TOO_LARGE"));
}

TEST(ScoringItemTest, RefusesWhatIsNoImage) {
  EXPECT_THAT(Error(Encoded("hello")), HasSubstr("IMAGE_DECODE_FAILED: neither"));
  EXPECT_THAT(Error(Encoded("\xff\xd8\xff")), HasSubstr("IMAGE_DECODE_FAILED"));
}

TEST(ScoringItemTest, RefusesAnImageThatWasCutOffAnywhere) {
  for (const std::string& whole : {Jpeg(40, 40), Png(40, 40)}) {
    for (size_t length = 1; length + 20 < whole.size(); length += 13) {
      EXPECT_THAT(Error(Encoded(whole.substr(0, length))), HasSubstr("IMAGE_DECODE_FAILED"))
          << length << " of " << whole.size() << " bytes";
    }
  }
}

TEST(ScoringItemTest, SurvivesDamagedImages) {
  std::mt19937 random(7);
  for (const std::string& whole : {Jpeg(40, 40), Png(40, 40)}) {
    for (int round = 0; round < 2000; ++round) {
      std::string damaged = whole;
      for (int i = 0; i < 4; ++i) damaged[random() % damaged.size()] = static_cast<char>(random());
      // Taken or refused for what it says; never a crash, never anything else.
      const std::string error = Error(Encoded(damaged));
      EXPECT_TRUE(error.empty() || error.rfind("IMAGE_", 0) == 0) << error;
    }
  }
}

TEST(ScoringItemTest, RefusesAnItemWithoutANeededPrompt) {
  EXPECT_THAT(Error(Raw(1, 1, 3), true), HasSubstr("PROMPT_MISSING: scorer s needs a prompt"));
}

TEST(ScoringItemTest, AnErrorWithoutAReasonGetsItsCodesName) {
  reward::v1::ScoreResult result;
  SetOutcome(absl::UnavailableError("judge is away"), &result);
  EXPECT_EQ(result.error().reason(), "UNAVAILABLE");
  EXPECT_EQ(result.error().message(), "judge is away");
}

}  // namespace
}  // namespace ddpo
