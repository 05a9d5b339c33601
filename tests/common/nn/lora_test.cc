#include "common/nn/lora.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "common/nn/unet.h"
#include "tests/testing/golden_fixture.h"
#include "tests/testing/paths.h"

namespace ddpo {
namespace {

using ::ddpo::testing::SourcePath;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kPrefix[] = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v";

const UNet& TestUNet() {
  static const auto& unet = *new std::unique_ptr<UNet>(
      UNet::Load(SourcePath("tests/goldens/unet/two_levels/unet"), {}).value());
  return *unet;
}

std::string Key(const std::string& ending) { return kPrefix + ending; }

std::string Error(const NamedTensors& tensors, double alpha = 0) {
  const absl::StatusOr<LoraWeights> lora = LoraFromTensors(TestUNet(), tensors, alpha);
  EXPECT_EQ(lora.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(lora.status().message());
}

TEST(RandomLoraTest, CoversTheFourProjectionsOfEveryAttention) {
  // Two levels of one layer: 1 + 1 transformers down, one in the middle, 2 + 2 up.
  EXPECT_EQ(TestUNet().lora_targets().size(), 7 * 2 * 4);
  const LoraWeights lora = RandomLora(TestUNet(), 2, 2, 1);
  EXPECT_EQ(lora.tensors.size(), 7 * 2 * 4 * 2);
  EXPECT_EQ(lora.tensors.at(Key(".lora_A.weight")).sizes(), (std::vector<int64_t>{2, 12}));
  EXPECT_EQ(lora.tensors.at(Key(".lora_B.weight")).sizes(), (std::vector<int64_t>{16, 2}));
}

TEST(RandomLoraTest, DrawsAFromANormalOfWidthOneOverRankAndStartsWithZeroB) {
  constexpr int kRank = 4;
  const LoraWeights lora = RandomLora(TestUNet(), kRank, kRank, 7);
  std::vector<at::Tensor> down;
  for (const auto& [key, tensor] : lora.tensors) {
    EXPECT_EQ(tensor.scalar_type(), at::kFloat);
    if (key.ends_with("lora_A.weight")) {
      down.push_back(tensor.flatten());
    } else {
      EXPECT_EQ(tensor.abs().max().item<float>(), 0) << key;
    }
  }
  // About 2,900 draws: the standard deviation is known to 1.3 %.
  EXPECT_NEAR(at::cat(down).std().item<double>(), 1.0 / kRank, 0.05 / kRank);
}

TEST(RandomLoraTest, FollowsFromItsSeed) {
  const LoraWeights a = RandomLora(TestUNet(), 2, 2, 5), b = RandomLora(TestUNet(), 2, 2, 5),
                    c = RandomLora(TestUNet(), 2, 2, 6);
  EXPECT_TRUE(at::equal(a.tensors.begin()->second, b.tensors.begin()->second));
  EXPECT_FALSE(at::equal(a.tensors.begin()->second, c.tensors.begin()->second));
}

TEST(LoraFromTensorsTest, TakesRankFromTheTensorsAndAlphaFromTheCaller) {
  const NamedTensors tensors = RandomLora(TestUNet(), 3, 3, 1).tensors;
  const absl::StatusOr<LoraWeights> lora = LoraFromTensors(TestUNet(), tensors, 6);
  ASSERT_TRUE(lora.ok()) << lora.status();
  EXPECT_EQ(lora->rank, 3);
  EXPECT_EQ(lora->scale(), 2);
  EXPECT_EQ(LoraFromTensors(TestUNet(), tensors)->scale(), 1);
}

TEST(LoraFromTensorsTest, TakesAlphaFromItsTensors) {
  NamedTensors tensors = RandomLora(TestUNet(), 2, 2, 1).tensors;
  for (const UNet::LoraTarget& target : TestUNet().lora_targets()) {
    tensors[target.prefix + ".alpha"] = at::scalar_tensor(8);
  }
  EXPECT_EQ(LoraFromTensors(TestUNet(), tensors)->alpha, 8);
  EXPECT_THAT(Error(tensors, 4), AllOf(HasSubstr("alpha is 4"), HasSubstr("8")));
  tensors[Key(".alpha")] = at::scalar_tensor(5);
  EXPECT_THAT(Error(tensors), HasSubstr("one alpha for all"));
  tensors[Key(".alpha")] = at::zeros({2});
  EXPECT_THAT(Error(tensors), AllOf(HasSubstr(Key(".alpha")), HasSubstr("a single number")));
}

TEST(LoraFromTensorsTest, TurnsHalfPrecisionIntoFloat32) {
  NamedTensors tensors = RandomLora(TestUNet(), 2, 2, 1).tensors;
  for (auto& [key, tensor] : tensors) tensor = tensor.to(at::kHalf);
  const absl::StatusOr<LoraWeights> lora = LoraFromTensors(TestUNet(), tensors);
  ASSERT_TRUE(lora.ok()) << lora.status();
  EXPECT_EQ(lora->tensors.begin()->second.scalar_type(), at::kFloat);
}

TEST(LoraFromTensorsTest, RefusesWhatDoesNotFit) {
  const NamedTensors good = RandomLora(TestUNet(), 2, 2, 1).tensors;
  NamedTensors tensors = good;
  tensors.erase(Key(".lora_B.weight"));
  EXPECT_THAT(Error(tensors), AllOf(HasSubstr(Key(".lora_B.weight")), HasSubstr("missing")));

  tensors = good;
  tensors["text_encoder.layers.0.q_proj.lora_A.weight"] = at::zeros({2, 4});
  EXPECT_THAT(Error(tensors), AllOf(HasSubstr("text_encoder.layers.0"), HasSubstr("unknown")));

  tensors = good;
  tensors[Key(".lora_A.weight")] = at::zeros({2, 13});
  EXPECT_THAT(Error(tensors),
              AllOf(HasSubstr(Key(".lora_A.weight")), HasSubstr("[2,13]"), HasSubstr("[2,12]")));

  tensors = good;
  tensors[Key(".lora_B.weight")] = at::zeros({16, 5});
  EXPECT_THAT(Error(tensors), AllOf(HasSubstr("[16,5]"), HasSubstr("[16,2]")));

  tensors = good;
  tensors[Key(".lora_B.weight")] = at::zeros({16, 2}, at::kLong);
  EXPECT_THAT(Error(tensors), HasSubstr("floating-point"));

  EXPECT_THAT(Error({}), HasSubstr("missing"));
}

TEST(LoraFromTensorsTest, RefusesAnAlphaThatIsNoPositiveNumber) {
  const NamedTensors tensors = RandomLora(TestUNet(), 2, 2, 1).tensors;
  EXPECT_THAT(Error(tensors, -1), HasSubstr("alpha is -1"));
  EXPECT_THAT(Error(tensors, std::nan("")), HasSubstr("alpha is nan"));
}

TEST(SerializeLoraTest, KeepsEveryBitAndAlpha) {
  for (const double alpha : {2.0, 5.0, 0.5}) {
    const LoraWeights lora = RandomLora(TestUNet(), 2, alpha, 3);
    absl::StatusOr<SafetensorsContents> contents = ParseSafetensors(SerializeLora(lora));
    ASSERT_TRUE(contents.ok()) << contents.status();
    const absl::StatusOr<LoraWeights> back = LoraFromContents(TestUNet(), *std::move(contents));
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(back->alpha, alpha);
    EXPECT_EQ(back->rank, 2);
    for (const auto& [key, tensor] : lora.tensors) {
      EXPECT_TRUE(at::equal(back->tensors.at(key), tensor)) << key;
    }
  }
}

TEST(LoraFromContentsTest, ReadsAlphaFromMetadata) {
  SafetensorsContents contents{.tensors = RandomLora(TestUNet(), 2, 2, 1).tensors, .metadata = {}};
  const auto alpha_of = [&](const std::string& key, const std::string& value) {
    contents.metadata = {{key, value}};
    return LoraFromContents(TestUNet(), contents);
  };
  EXPECT_EQ(alpha_of("lora_alpha", "7")->alpha, 7);
  EXPECT_EQ(alpha_of("lora_adapter_metadata", R"({"unet.lora_alpha": 9})")->alpha, 9);
  EXPECT_EQ(alpha_of("lora_adapter_metadata", R"({"unet.r": 2})")->alpha, 2);
  EXPECT_EQ(alpha_of("format", "pt")->alpha, 2);
  EXPECT_THAT(std::string(alpha_of("lora_alpha", "much").status().message()),
              HasSubstr("lora_alpha is 'much', expected a number"));
  EXPECT_THAT(std::string(alpha_of("lora_adapter_metadata", "[").status().message()),
              HasSubstr("not a JSON object"));
  EXPECT_THAT(
      std::string(
          alpha_of("lora_adapter_metadata", R"({"unet.lora_alpha": "x"})").status().message()),
      HasSubstr("unet.lora_alpha \"x\""));
}

}  // namespace
}  // namespace ddpo
