#include "common/nn/clip_image_processor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "tests/testing/copied_folder.h"
#include "tests/testing/golden_fixture.h"
#include "tests/testing/image_tensor.h"
#include "tests/testing/paths.h"

namespace ddpo {
namespace {

using ::ddpo::testing::CopiedFolder;
using ::ddpo::testing::GoldenFixture;
using ::ddpo::testing::ImageOf;
using ::ddpo::testing::ReadGoldenFixture;
using ::ddpo::testing::SourcePath;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kConfig[] = "preprocessor_config.json";

std::string ProcessorDir(const std::string& name) {
  return SourcePath("tests/goldens/clip_vision/processor_" + name);
}

Image Gray(int width, int height) {
  return {width, height, std::vector<uint8_t>(static_cast<size_t>(width) * height * 3, 128)};
}

class ClipImageProcessorGoldenTest : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Configurations, ClipImageProcessorGoldenTest,
                         ::testing::Values("clip", "padding", "as_they_are", "both_edges",
                                           "not_normalized", "not_rescaled", "bytes", "one_mean",
                                           "squared", "squared_only"),
                         [](const auto& test) { return test.param; });

TEST_P(ClipImageProcessorGoldenTest, GivesTransformersPixelsBitByBit) {
  const GoldenFixture golden =
      ReadGoldenFixture("clip_vision/processor_" + GetParam() + ".safetensors");
  const auto processor = ClipImageProcessor::Load(ProcessorDir(GetParam()));
  ASSERT_TRUE(processor.ok()) << processor.status();
  ASSERT_EQ(golden.in.size(), 5u);
  for (size_t i = 0; i < golden.in.size(); ++i) {
    const std::string number = std::to_string(i);
    const Image image = ImageOf(golden.in.at("images." + number));
    const absl::StatusOr<at::Tensor> pixels = processor->Process(image);
    ASSERT_TRUE(pixels.ok()) << pixels.status();
    EXPECT_TRUE(at::equal(*pixels, golden.out.at("pixel_values." + number)))
        << "image of " << image.width << " × " << image.height;
  }
}

TEST(ClipImageProcessorTest, RefusesWhatItWouldComputeOtherwise) {
  const CopiedFolder dir(ProcessorDir("clip"));
  const auto error_of = [&](const std::string& key, const nlohmann::json& value) {
    const nlohmann::json before = nlohmann::json::parse(ReadFile(dir / kConfig).value());
    dir.SetJson(kConfig, key, value);
    const absl::Status status = ClipImageProcessor::Load(dir.path()).status();
    dir.Write(kConfig, before.dump());
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << key;
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(kConfig), HasSubstr(key)));
    return std::string(status.message());
  };
  EXPECT_THAT(error_of("resample", 2), HasSubstr("bicubic"));
  error_of("image_processor_type", "ViTImageProcessor");
  error_of("size", {{"shortest_edge", 24}, {"longest_edge", 40}});
  error_of("size", {{"shortest_edge", -1}});
  error_of("size", "large");
  error_of("crop_size", {{"height", 24}});
  error_of("image_mean", {0.5, 0.5});
  error_of("image_std", {0.5, 0, 0.5});
  error_of("do_pad", true);  // of LlavaImageProcessor only
}

TEST(ClipImageProcessorTest, RefusesAnImageWithoutPixels) {
  const auto processor = ClipImageProcessor::Load(ProcessorDir("clip"));
  ASSERT_TRUE(processor.ok()) << processor.status();
  EXPECT_EQ(processor->Process(Image{}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ClipImageProcessorTest, RefusesALineThatWouldGrowBeyondMeasure) {
  const auto processor = ClipImageProcessor::Load(ProcessorDir("clip"));
  ASSERT_TRUE(processor.ok()) << processor.status();
  const absl::Status status = processor->Process(Gray(1 << 20, 1)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("1048576 × 1"));

  const auto squared = ClipImageProcessor::Load(ProcessorDir("squared"));
  ASSERT_TRUE(squared.ok()) << squared.status();
  EXPECT_THAT(std::string(squared->Process(Gray(1, 1 << 20)).status().message()),
              HasSubstr("padded to 1048576 × 1048576"));
}

TEST(ClipImageProcessorTest, KnowsTheSizeOfWhatComesOut) {
  const auto size = [](const std::string& name) {
    const auto processor = ClipImageProcessor::Load(ProcessorDir(name)).value();
    return std::pair(processor.output_width(), processor.output_height());
  };
  EXPECT_EQ(size("padding"), std::pair(int64_t{22}, int64_t{28}));
  EXPECT_EQ(size("both_edges"), std::pair(int64_t{31}, int64_t{18}));
  EXPECT_EQ(size("squared_only"), std::pair(int64_t{11}, int64_t{11}));
  const CopiedFolder dir(ProcessorDir("squared_only"));
  dir.SetJson(kConfig, "do_pad", false);
  const auto uneven = ClipImageProcessor::Load(dir.path()).value();
  EXPECT_EQ(uneven.output_width(), 0);
}

TEST(ClipImageProcessorTest, PutsOnlyEqualSizesIntoABatch) {
  const auto processor = ClipImageProcessor::Load(ProcessorDir("both_edges"));
  ASSERT_TRUE(processor.ok()) << processor.status();
  const absl::StatusOr<at::Tensor> batch =
      processor->Process(std::vector<Image>{Gray(9, 9), Gray(40, 3)});
  ASSERT_TRUE(batch.ok()) << batch.status();
  EXPECT_EQ(batch->sizes(), at::IntArrayRef({2, 3, 18, 31}));

  const CopiedFolder dir(ProcessorDir("both_edges"));
  dir.SetJson(kConfig, "size", {{"shortest_edge", 9}});
  const auto uneven = ClipImageProcessor::Load(dir.path());
  ASSERT_TRUE(uneven.ok()) << uneven.status();
  EXPECT_THAT(
      std::string(uneven->Process(std::vector<Image>{Gray(9, 9), Gray(18, 9)}).status().message()),
      HasSubstr("18 × 9"));
}

TEST(ClipImageProcessorTest, SaysWhichFileIsMissing) {
  const absl::Status status = ClipImageProcessor::Load("/nowhere").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nowhere/preprocessor_config.json"));
}

}  // namespace
}  // namespace ddpo
