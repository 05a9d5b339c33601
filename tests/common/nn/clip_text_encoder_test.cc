#include "common/nn/clip_text_encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/testing/copied_folder.h"
#include "tests/testing/golden_fixture.h"
#include "tests/testing/paths.h"

namespace ddpo {
namespace {

using ::ddpo::testing::BadKey;
using ::ddpo::testing::CopiedFolder;
using ::ddpo::testing::GoldenFixture;
using ::ddpo::testing::MaxAbsDiff;
using ::ddpo::testing::ReadGoldenFixture;
using ::ddpo::testing::Refuses;
using ::ddpo::testing::SourcePath;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kWeights[] = "model.safetensors";
constexpr char kSomeKey[] = "text_model.encoder.layers.1.mlp.fc1.weight";

// Two float32 computations in different orders, on outputs of size 1 to 3.
constexpr double kTolerance = 1e-5;

std::string CaseDir(const std::string& name) { return SourcePath("tests/goldens/clip/" + name); }

at::Tensor Encode(const std::string& dir, const GoldenFixture& golden,
                  const NetworkOptions& options = {}) {
  const auto encoder = ClipTextEncoder::Load(dir, options);
  EXPECT_TRUE(encoder.ok()) << encoder.status();
  return encoder.ok() ? (*encoder)->Forward(golden.in.at("input_ids")) : at::Tensor();
}

class ClipTextEncoderGoldenTest : public ::testing::TestWithParam<std::string> {
 protected:
  const CopiedFolder dir_{CaseDir(GetParam())};
  const GoldenFixture golden_ = ReadGoldenFixture("clip/" + GetParam() + ".safetensors");
  const at::Tensor expected_ = golden_.out.at("last_hidden_state");
};
INSTANTIATE_TEST_SUITE_P(Shapes, ClipTextEncoderGoldenTest, ::testing::Values("quick_gelu", "gelu"),
                         [](const auto& test) { return test.param; });

TEST_P(ClipTextEncoderGoldenTest, GivesTransformersHiddenStates) {
  const at::Tensor hidden = Encode(dir_.path(), golden_);
  EXPECT_EQ(hidden.scalar_type(), at::kFloat);
  EXPECT_LT(MaxAbsDiff(hidden, expected_), kTolerance);
}

// Without this the test above could pass with the activation misread.
TEST_P(ClipTextEncoderGoldenTest, TheActivationCounts) {
  dir_.SetJson("config.json", "hidden_act", GetParam() == "gelu" ? "quick_gelu" : "gelu");
  EXPECT_GT(MaxAbsDiff(Encode(dir_.path(), golden_), expected_), 100 * kTolerance);
}

TEST_P(ClipTextEncoderGoldenTest, ReadsKeysWithoutThePrefixAndThoseItDoesNotNeed) {
  const at::Tensor before = Encode(dir_.path(), golden_);
  dir_.ChangeTensors(kWeights, [](NamedTensors& tensors) {
    NamedTensors bare;
    for (const auto& [key, tensor] : tensors) {
      bare[key.substr(std::string("text_model.").size())] = tensor;
    }
    bare["embeddings.position_ids"] = at::arange(9).unsqueeze(0);
    bare["text_projection.weight"] = at::zeros({4, 4});
    tensors = bare;
  });
  EXPECT_TRUE(at::equal(Encode(dir_.path(), golden_), before));
}

TEST_P(ClipTextEncoderGoldenTest, ReadsShardedWeights) {
  const at::Tensor before = Encode(dir_.path(), golden_);
  dir_.Shard(kWeights);
  EXPECT_TRUE(at::equal(Encode(dir_.path(), golden_), before));
}

// The goldens' weights lie on fp16's grid, so a file in float32 holds the same numbers.
TEST_P(ClipTextEncoderGoldenTest, ReadsWeightsOfAnyFloatingPointType) {
  const at::Tensor before = Encode(dir_.path(), golden_);
  dir_.ChangeTensors(kWeights, [](NamedTensors& tensors) {
    ASSERT_EQ(tensors.at(kSomeKey).scalar_type(), at::kHalf);
    for (auto& [key, tensor] : tensors) tensor = tensor.to(at::kFloat);
  });
  EXPECT_TRUE(at::equal(Encode(dir_.path(), golden_), before));
}

TEST_P(ClipTextEncoderGoldenTest, HalfPrecisionStaysCloseAndGivesFloat32) {
  for (const auto& [dtype, tolerance] : {std::pair(at::kHalf, 0.02), {at::kBFloat16, 0.2}}) {
    const at::Tensor hidden = Encode(dir_.path(), golden_, {.dtype = dtype});
    EXPECT_EQ(hidden.scalar_type(), at::kFloat);
    EXPECT_LT(MaxAbsDiff(hidden, expected_), tolerance) << c10::toString(dtype);
  }
}

TEST_P(ClipTextEncoderGoldenTest, ATokenSeesOnlyThoseBeforeIt) {
  const auto encoder = ClipTextEncoder::Load(dir_.path(), {}).value();
  const at::Tensor& ids = golden_.in.at("input_ids");
  at::Tensor changed = ids.clone();
  changed.select(1, 3).copy_((ids.select(1, 3) + 1) % 20);
  const at::Tensor before = encoder->Forward(ids);
  const at::Tensor after = encoder->Forward(changed);
  EXPECT_EQ(MaxAbsDiff(after.slice(1, 0, 3), before.slice(1, 0, 3)), 0);
  EXPECT_GT(MaxAbsDiff(after.slice(1, 3), before.slice(1, 3)), 0.01);
}

TEST_P(ClipTextEncoderGoldenTest, RefusesMoreTokensThanItHasPositions) {
  const auto encoder = ClipTextEncoder::Load(dir_.path(), {}).value();
  EXPECT_THROW(encoder->Forward(at::zeros({1, 10}, at::kLong)), c10::Error);
}

class ClipTextEncoderTest : public ::testing::Test {
 protected:
  std::string LoadError() const {
    const absl::Status status = ClipTextEncoder::Load(dir_.path(), {}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  }

  const CopiedFolder dir_{CaseDir("quick_gelu")};
};

TEST_F(ClipTextEncoderTest, NamesAMissingTensorAndItsShape) {
  dir_.ChangeTensors(kWeights, [](NamedTensors& tensors) { tensors.erase(kSomeKey); });
  EXPECT_THAT(LoadError(), AllOf(HasSubstr(dir_ / kWeights), HasSubstr(kSomeKey),
                                 HasSubstr("[40,16] is missing")));
}

TEST_F(ClipTextEncoderTest, NamesBothShapesOfATensor) {
  dir_.ChangeTensors(kWeights, [](NamedTensors& tensors) {
    tensors[kSomeKey] = at::zeros({40, 17});
  });
  EXPECT_THAT(LoadError(), AllOf(HasSubstr(dir_ / kWeights), HasSubstr(kSomeKey),
                                 HasSubstr("[40,17], expected [40,16]")));
}

TEST_F(ClipTextEncoderTest, NamesATensorOfALayerThatTheConfigDoesNotHave) {
  dir_.SetJson("config.json", "num_hidden_layers", 2);
  EXPECT_THAT(LoadError(), HasSubstr("text_model.encoder.layers.2."));
}

TEST_F(ClipTextEncoderTest, RefusesAnotherFamily) {
  dir_.SetJson("config.json", "architectures", {"T5EncoderModel"});
  EXPECT_THAT(LoadError(), AllOf(HasSubstr("config.json: architectures is [\"T5EncoderModel\"]"),
                                 HasSubstr("CLIPTextModel")));
}

TEST_F(ClipTextEncoderTest, RefusesValuesThatItDoesNotKnow) {
  for (const BadKey& bad :
       {BadKey{"model_type", "clip_vision_model", "\"clip_text_model\""},
        BadKey{"hidden_act", "relu", "\"quick_gelu\" or \"gelu\""},
        BadKey{"num_attention_heads", 3, "divides hidden_size (16)"},
        BadKey{"hidden_size", "16", "a whole number"},
        BadKey{"num_hidden_layers", 0, "a whole number in 1"},
        BadKey{"vocab_size", -1, "a whole number"}, BadKey{"layer_norm_eps", "1e-5", "a number"}}) {
    const CopiedFolder dir(CaseDir("quick_gelu"));
    dir.SetJson("config.json", bad.key, bad.value);
    EXPECT_THAT(std::string(ClipTextEncoder::Load(dir.path(), {}).status().message()),
                Refuses(dir, bad));
  }
}

TEST_F(ClipTextEncoderTest, NamesAMissingFile) {
  std::filesystem::remove(dir_ / kWeights);
  EXPECT_THAT(std::string(ClipTextEncoder::Load(dir_.path(), {}).status().message()),
              HasSubstr(dir_.path() + ": no weights"));
  std::filesystem::remove(dir_ / "config.json");
  EXPECT_THAT(std::string(ClipTextEncoder::Load(dir_.path(), {}).status().message()),
              HasSubstr(dir_ / "config.json"));
}

}  // namespace
}  // namespace ddpo
