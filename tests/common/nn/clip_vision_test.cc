#include "common/nn/clip_vision.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "common/nn/clip_image_encoder.h"
#include "tests/testing/copied_folder.h"
#include "tests/testing/golden_fixture.h"
#include "tests/testing/image_tensor.h"
#include "tests/testing/paths.h"

namespace ddpo {
namespace {

using ::ddpo::testing::CopiedFolder;
using ::ddpo::testing::GoldenFixture;
using ::ddpo::testing::ImagesOf;
using ::ddpo::testing::MaxAbsDiff;
using ::ddpo::testing::ReadGoldenFixture;
using ::ddpo::testing::SourcePath;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Two float32 computations in different orders, on outputs of size 1 to 5.
constexpr double kTolerance = 1e-5;
constexpr char kWeights[] = "model.safetensors";

std::string ModelDir(const std::string& name) {
  return SourcePath("tests/goldens/clip_vision/" + name);
}

absl::StatusOr<ClipVisionTower> LoadTower(const std::string& dir) {
  absl::StatusOr<JsonConfig> config = JsonConfig::Read(dir + "/config.json");
  EXPECT_TRUE(config.ok()) << config.status();
  absl::StatusOr<WeightLoader> loader = WeightLoader::Open(dir, {});
  EXPECT_TRUE(loader.ok()) << loader.status();
  if (!config->Has("vision_config")) {
    return ClipVisionTower::Load(*loader, "vision_model.", *config);
  }
  return ClipVisionTower::Load(*loader, "vision_model.", config->Object("vision_config").value());
}

class ClipVisionGoldenTest : public ::testing::TestWithParam<std::string> {
 protected:
  const GoldenFixture golden_ = ReadGoldenFixture("clip_vision/" + GetParam() + ".safetensors");
  const at::Tensor pixels_ = golden_.in.at("pixel_values");
};
INSTANTIATE_TEST_SUITE_P(Shapes, ClipVisionGoldenTest,
                         ::testing::Values("both_towers", "vision_only"),
                         [](const auto& test) { return test.param; });

TEST_P(ClipVisionGoldenTest, GivesTransformersHiddenStatesCountedFromEitherEnd) {
  const absl::StatusOr<ClipVisionTower> tower = LoadTower(ModelDir(GetParam()));
  ASSERT_TRUE(tower.ok()) << tower.status();
  for (int64_t layer = 0; layer <= tower->layers(); ++layer) {
    const at::Tensor expected = golden_.out.at("hidden_states." + std::to_string(layer));
    EXPECT_LT(MaxAbsDiff(tower->HiddenState(pixels_, layer), expected), kTolerance) << layer;
    const int64_t from_end = layer - tower->layers() - 1;
    EXPECT_LT(MaxAbsDiff(tower->HiddenState(pixels_, from_end), expected), kTolerance) << from_end;
  }
}

TEST_P(ClipVisionGoldenTest, GivesTransformersPooledOutput) {
  const absl::StatusOr<ClipVisionTower> tower = LoadTower(ModelDir(GetParam()));
  ASSERT_TRUE(tower.ok()) << tower.status();
  EXPECT_LT(MaxAbsDiff(tower->Pooled(pixels_), golden_.out.at("pooler_output")), kTolerance);
}

TEST_P(ClipVisionGoldenTest, RefusesPixelsAndLayersThatItDoesNotHave) {
  const absl::StatusOr<ClipVisionTower> tower = LoadTower(ModelDir(GetParam()));
  ASSERT_TRUE(tower.ok()) << tower.status();
  EXPECT_THROW(tower->HiddenState(pixels_.narrow(2, 0, 4), 0), c10::Error);
  EXPECT_THROW(tower->HiddenState(pixels_, tower->layers() + 1), c10::Error);
  EXPECT_THROW(tower->HiddenState(pixels_, -tower->layers() - 2), c10::Error);
}

TEST(ClipVisionTowerTest, LoadsWithoutWhatOnlyPoolingNeeds) {
  const CopiedFolder dir(ModelDir("vision_only"));
  dir.ChangeTensors(kWeights, [](NamedTensors& tensors) {
    tensors.erase("vision_model.post_layernorm.weight");
    tensors.erase("vision_model.post_layernorm.bias");
  });
  const absl::StatusOr<ClipVisionTower> tower = LoadTower(dir.path());
  ASSERT_TRUE(tower.ok()) << tower.status();
  EXPECT_FALSE(tower->has_pooling());
  EXPECT_THROW(tower->Pooled(at::zeros({1, 3, 44, 44})), c10::Error);
}

class ClipImageEncoderGoldenTest : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Shapes, ClipImageEncoderGoldenTest,
                         ::testing::Values("both_towers", "vision_only"),
                         [](const auto& test) { return test.param; });

TEST_P(ClipImageEncoderGoldenTest, GivesTransformersEmbeddingsOfAnImage) {
  const GoldenFixture golden =
      ReadGoldenFixture("clip_vision/" + GetParam() + "_clip_image_83x41.safetensors");
  const auto encoder = ClipImageEncoder::Load(ModelDir(GetParam()), {});
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  const absl::StatusOr<at::Tensor> pixels =
      encoder->processor().Process(ImagesOf(golden.in.at("images")));
  ASSERT_TRUE(pixels.ok()) << pixels.status();
  EXPECT_LT(MaxAbsDiff(encoder->Encode(*pixels), golden.out.at("image_embeds")), kTolerance);
}

TEST(ClipImageEncoderTest, DoesNotMindTheBufferOfPositionsThatOldFilesHold) {
  const CopiedFolder dir(ModelDir("both_towers"));
  dir.ChangeTensors(kWeights, [](NamedTensors& tensors) {
    tensors["vision_model.embeddings.position_ids"] = at::arange(17).unsqueeze(0);
  });
  const auto encoder = ClipImageEncoder::Load(dir.path(), {});
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  EXPECT_EQ(encoder->projection_dim(), 24);
}

TEST(ClipImageEncoderTest, NamesTheFileTheTensorAndBothShapes) {
  const CopiedFolder dir(ModelDir("vision_only"));
  dir.SetJson("config.json", "projection_dim", 41);
  EXPECT_THAT(std::string(ClipImageEncoder::Load(dir.path(), {}).status().message()),
              AllOf(HasSubstr(dir / kWeights), HasSubstr("visual_projection.weight"),
                    HasSubstr("[40,36]"), HasSubstr("[41,36]")));
}

TEST(ClipImageEncoderTest, NamesATensorThatIsMissing) {
  const CopiedFolder dir(ModelDir("both_towers"));
  dir.ChangeTensors(kWeights, [](NamedTensors& tensors) {
    tensors.erase("vision_model.post_layernorm.weight");
    tensors.erase("vision_model.post_layernorm.bias");
  });
  EXPECT_THAT(std::string(ClipImageEncoder::Load(dir.path(), {}).status().message()),
              AllOf(HasSubstr(dir / kWeights), HasSubstr("vision_model.post_layernorm.weight")));
}

TEST(ClipImageEncoderTest, RefusesAProcessorThatCropsToAnotherSize) {
  const CopiedFolder dir(ModelDir("both_towers"));
  dir.SetJson("preprocessor_config.json", "crop_size", 30);
  EXPECT_THAT(std::string(ClipImageEncoder::Load(dir.path(), {}).status().message()),
              AllOf(HasSubstr("30 × 30"), HasSubstr("32 × 32")));
}

TEST(ClipImageEncoderTest, RefusesAModelOfAnotherKind) {
  const CopiedFolder dir(ModelDir("both_towers"));
  dir.SetJson("config.json", "model_type", "siglip");
  EXPECT_THAT(std::string(ClipImageEncoder::Load(dir.path(), {}).status().message()),
              AllOf(HasSubstr("config.json"), HasSubstr("siglip")));
}

}  // namespace
}  // namespace ddpo
