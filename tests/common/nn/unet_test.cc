#include "common/nn/unet.h"

#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

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
using ::testing::TestWithParam;

constexpr double kLoraAlpha = 3;  // of make_unet_goldens.py
constexpr char kWeights[] = "diffusion_pytorch_model.safetensors";
constexpr char kSomeKey[] = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight";

std::string CaseDir(const std::string& name) { return SourcePath("tests/goldens/unet/" + name); }

std::unique_ptr<UNet> LoadCase(const std::string& name) {
  absl::StatusOr<std::unique_ptr<UNet>> unet = UNet::Load(CaseDir(name) + "/unet", {});
  EXPECT_TRUE(unet.ok()) << unet.status();
  return *std::move(unet);
}

// A case's fixture of kind `unet`.
struct Fixture {
  at::Tensor sample, timestep, text, output;
  NamedTensors lora;

  at::Tensor Forward(const UNet& unet, const LoraWeights* weights) const {
    return unet.Forward(sample, timestep, text, weights);
  }
};

Fixture ReadFixture(const std::string& name, const std::string& file) {
  const GoldenFixture golden = ReadGoldenFixture("unet/" + name + "/" + file);
  return {.sample = golden.in.at("sample"),
          .timestep = golden.in.at("timestep"),
          .text = golden.in.at("encoder_hidden_states"),
          .output = golden.out.at("sample"),
          .lora = golden.lora};
}

LoraWeights FixtureLora(const UNet& unet, const Fixture& fixture) {
  absl::StatusOr<LoraWeights> lora = LoraFromTensors(unet, fixture.lora, kLoraAlpha);
  EXPECT_TRUE(lora.ok()) << lora.status();
  return *std::move(lora);
}

class UNetGoldenTest : public TestWithParam<std::string> {
 protected:
  UNetGoldenTest() : unet_(LoadCase(GetParam())) {}

  std::unique_ptr<UNet> unet_;
};

INSTANTIATE_TEST_SUITE_P(Shapes, UNetGoldenTest,
                         ::testing::Values("two_levels", "three_levels", "linear_projection",
                                           "sd15_narrow"),
                         [](const auto& test) { return test.param; });

// Two float32 computations of some hundred layers in different orders: a few 1e-6 on outputs of
// size 1 to 3.
constexpr double kOutputTolerance = 2e-5;

TEST_P(UNetGoldenTest, PredictsDiffusersNoise) {
  const Fixture fixture = ReadFixture(GetParam(), "base.safetensors");
  EXPECT_LT(MaxAbsDiff(fixture.Forward(*unet_, nullptr), fixture.output), kOutputTolerance);
}

TEST_P(UNetGoldenTest, PredictsPeftsNoiseWithLora) {
  const Fixture fixture = ReadFixture(GetParam(), "lora.safetensors");
  const LoraWeights lora = FixtureLora(*unet_, fixture);
  EXPECT_LT(MaxAbsDiff(fixture.Forward(*unet_, &lora), fixture.output), kOutputTolerance);
  EXPECT_GT(MaxAbsDiff(fixture.Forward(*unet_, nullptr), fixture.output), 0.01)
      << "the LoRA of this fixture changes nothing, so the test can't fail";
}

TEST_P(UNetGoldenTest, GradientsOfTheLoraArePyTorchs) {
  const Fixture fixture = ReadFixture(GetParam(), "lora.safetensors");
  LoraWeights lora = FixtureLora(*unet_, fixture);
  for (auto& [key, tensor] : lora.tensors) tensor.requires_grad_(true);
  fixture.Forward(*unet_, &lora).square().sum().backward();

  const NamedTensors expected =
      ReadGoldenFixture("unet/" + GetParam() + "/lora_gradients.safetensors").out;
  ASSERT_EQ(expected.size(), lora.tensors.size());
  double largest = 0;
  for (const auto& [key, tensor] : expected) {
    largest = std::max(largest, tensor.abs().max().item<double>());
  }
  for (const auto& [key, tensor] : expected) {
    // Rounding errors of a sum over all pixels are relative to the largest gradients.
    EXPECT_LT(MaxAbsDiff(lora.tensors.at(key).grad(), tensor), 1e-5 * largest) << key;
  }
}

TEST_P(UNetGoldenTest, ARowDoesNotDependOnTheOtherRows) {
  const Fixture fixture = ReadFixture(GetParam(), "lora.safetensors");
  const LoraWeights lora = FixtureLora(*unet_, fixture);
  const at::Tensor all = fixture.Forward(*unet_, &lora);
  for (int64_t row = 0; row < all.size(0); ++row) {
    const at::Tensor alone =
        unet_->Forward(fixture.sample.narrow(0, row, 1), fixture.timestep.narrow(0, row, 1),
                       fixture.text.narrow(0, row, 1), &lora);
    EXPECT_TRUE(at::equal(alone[0], all[row])) << "row " << row;
  }
  const at::Tensor order = at::tensor({2, 0, 1, 2, 2, 1, 0, 0, 1, 2, 0});
  const at::Tensor shuffled =
      unet_->Forward(fixture.sample.index_select(0, order), fixture.timestep.index_select(0, order),
                     fixture.text.index_select(0, order), &lora);
  EXPECT_TRUE(at::equal(shuffled, all.index_select(0, order)));
}

TEST_P(UNetGoldenTest, RecordingGradientsChangesNoBit) {
  const Fixture fixture = ReadFixture(GetParam(), "lora.safetensors");
  LoraWeights lora = FixtureLora(*unet_, fixture);
  const at::Tensor without = fixture.Forward(*unet_, &lora);
  for (auto& [key, tensor] : lora.tensors) tensor.requires_grad_(true);
  const at::Tensor recorded = fixture.Forward(*unet_, &lora);
  ASSERT_TRUE(recorded.requires_grad());
  EXPECT_TRUE(at::equal(recorded, without));
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(at::equal(fixture.Forward(*unet_, &lora), without));
}

TEST_P(UNetGoldenTest, PreparedTextChangesNoBit) {
  const Fixture fixture = ReadFixture(GetParam(), "lora.safetensors");
  const LoraWeights lora = FixtureLora(*unet_, fixture);
  const auto text = unet_->PrepareText(fixture.text, &lora);
  EXPECT_TRUE(at::equal(unet_->Forward(fixture.sample, fixture.timestep, *text, &lora),
                        fixture.Forward(*unet_, &lora)));
}

TEST_P(UNetGoldenTest, MergedLoraPredictsTheSame) {
  const Fixture fixture = ReadFixture(GetParam(), "lora.safetensors");
  const LoraWeights lora = FixtureLora(*unet_, fixture);
  const at::Tensor unmerged = fixture.Forward(*unet_, &lora);
  ASSERT_TRUE(unet_->MergeLora(lora).ok());
  // W + s·B·A is rounded once more than the two products apart.
  EXPECT_LT(MaxAbsDiff(fixture.Forward(*unet_, nullptr), unmerged), kOutputTolerance);
}

TEST_P(UNetGoldenTest, UnmergingLeavesNoTrace) {
  const Fixture fixture = ReadFixture(GetParam(), "lora.safetensors");
  const LoraWeights lora = FixtureLora(*unet_, fixture);
  const at::Tensor before = fixture.Forward(*unet_, nullptr);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(unet_->MergeLora(lora).ok());
    ASSERT_TRUE(unet_->MergeLora(lora).ok());
    EXPECT_FALSE(at::equal(fixture.Forward(*unet_, nullptr), before));
    unet_->UnmergeLora();
    EXPECT_TRUE(at::equal(fixture.Forward(*unet_, nullptr), before));
  }
}

TEST(UNetTest, ServesSeveralThreadsWithALoraEach) {
  const std::unique_ptr<UNet> unet = LoadCase("two_levels");
  const Fixture fixture = ReadFixture("two_levels", "lora.safetensors");
  constexpr int kThreads = 4;
  std::vector<LoraWeights> loras;
  std::vector<at::Tensor> expected;
  for (int i = 0; i < kThreads; ++i) {
    loras.push_back(FixtureLora(*unet, fixture));
    loras.back().alpha = i;
    expected.push_back(fixture.Forward(*unet, &loras.back()));
  }
  std::vector<int> equal(kThreads, 0);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (int run = 0; run < 10; ++run) {
        equal[i] += at::equal(fixture.Forward(*unet, &loras[i]), expected[i]);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(equal, ::testing::Each(10));
  EXPECT_FALSE(at::equal(expected[0], expected[1]));
}

TEST(UNetTest, HalfPrecisionWeightsStayCloseAndKeepFloat32Interfaces) {
  const Fixture fixture = ReadFixture("two_levels", "lora.safetensors");
  auto unet = UNet::Load(CaseDir("two_levels") + "/unet", {.dtype = at::kBFloat16});
  ASSERT_TRUE(unet.ok()) << unet.status();
  LoraWeights lora = FixtureLora(**unet, fixture);
  for (auto& [key, tensor] : lora.tensors) tensor.requires_grad_(true);
  const at::Tensor output = fixture.Forward(**unet, &lora);
  EXPECT_EQ(output.scalar_type(), at::kFloat);
  // bfloat16 keeps 8 bits: 0.4 % a layer, on outputs of size 2.
  EXPECT_LT(MaxAbsDiff(output, fixture.output), 0.2);
  output.sum().backward();
  EXPECT_EQ(lora.tensors.begin()->second.grad().scalar_type(), at::kFloat);
}

TEST(UNetTest, AnInputOfTheWrongShapeIsRefused) {
  const std::unique_ptr<UNet> unet = LoadCase("two_levels");
  const Fixture fixture = ReadFixture("two_levels", "base.safetensors");
  EXPECT_THROW(
      unet->Forward(fixture.sample.narrow(1, 0, 3), fixture.timestep, fixture.text, nullptr),
      c10::Error);
  EXPECT_THROW(
      unet->Forward(fixture.sample, fixture.timestep.narrow(0, 0, 2), fixture.text, nullptr),
      c10::Error);
  EXPECT_THROW(
      unet->Forward(fixture.sample, fixture.timestep, fixture.text.narrow(2, 0, 5), nullptr),
      c10::Error);
  EXPECT_THROW(
      unet->Forward(fixture.sample, fixture.timestep, fixture.text.narrow(0, 0, 2), nullptr),
      c10::Error);
}

class DamagedUNetTest : public ::testing::Test {
 protected:
  std::string LoadError() const {
    const absl::StatusOr<std::unique_ptr<UNet>> unet = UNet::Load(dir_.path(), {});
    EXPECT_EQ(unet.status().code(), absl::StatusCode::kInvalidArgument) << unet.status();
    return std::string(unet.status().message());
  }

  const CopiedFolder dir_{CaseDir("two_levels") + "/unet"};
};

TEST_F(DamagedUNetTest, NamesAMissingTensor) {
  dir_.ChangeTensors(kWeights, [](NamedTensors& tensors) { tensors.erase(kSomeKey); });
  EXPECT_THAT(LoadError(), AllOf(HasSubstr("diffusion_pytorch_model.safetensors"),
                                 HasSubstr(kSomeKey), HasSubstr("missing")));
}

TEST_F(DamagedUNetTest, NamesBothShapesOfATensor) {
  dir_.ChangeTensors(kWeights, [](NamedTensors& tensors) {
    tensors[kSomeKey] = at::zeros({16, 13});
  });
  EXPECT_THAT(LoadError(), AllOf(HasSubstr(kSomeKey), HasSubstr("[16,13]"), HasSubstr("[16,12]")));
}

TEST_F(DamagedUNetTest, NamesATensorThatHasNoPlace) {
  dir_.ChangeTensors(
      kWeights, [](NamedTensors& tensors) { tensors["add_embedding.weight"] = at::zeros({1}); });
  EXPECT_THAT(LoadError(), HasSubstr("add_embedding.weight"));
}

TEST_F(DamagedUNetTest, RefusesAConfigThatIsNoJson) {
  dir_.Write("config.json", "{");
  EXPECT_THAT(LoadError(), HasSubstr("config.json: not a JSON object"));
}

class RefusedConfigTest : public DamagedUNetTest, public ::testing::WithParamInterface<BadKey> {};

INSTANTIATE_TEST_SUITE_P(
    Keys, RefusedConfigTest,
    ::testing::Values(
        BadKey{"_class_name", "UNet3DConditionModel", "\"UNet2DConditionModel\""},
        BadKey{"act_fn", "gelu", "\"silu\""}, BadKey{"addition_embed_type", "text_time", "null"},
        BadKey{"attention_head_dim", 3, "divides the 8 channels of level 0"},
        BadKey{"attention_head_dim", {2, 2, 2}, "a list of 2"},
        BadKey{"attention_type", "gated", "\"default\""},
        BadKey{"block_out_channels", {8, 18}, "multiples of norm_num_groups (4)"},
        BadKey{"block_out_channels", 8, "a list"}, BadKey{"center_input_sample", true, "false"},
        BadKey{"class_embed_type", "timestep", "null"}, BadKey{"conv_in_kernel", 1, "3"},
        BadKey{"cross_attention_dim", {12, 12}, "a whole number"},
        BadKey{"down_block_types", {"AttnDownBlock2D", "DownBlock2D"}, "CrossAttnDownBlock2D"},
        BadKey{"dual_cross_attention", true, "false"}, BadKey{"encoder_hid_dim", 12, "null"},
        BadKey{"in_channels", -4, "a whole number"}, BadKey{"in_channels", 9.5, "a whole number"},
        BadKey{"layers_per_block", 0, "a whole number in 1"},
        BadKey{"layers_per_block", {1, 1.5}, "whole numbers in 1"},
        BadKey{"layers_per_block", {1}, "a list of 2"},
        BadKey{"mid_block_type", "UNetMidBlock2DSimpleCrossAttn", "UNetMidBlock2DCrossAttn"},
        BadKey{"norm_eps", "small", "a number"}, BadKey{"norm_num_groups", nullptr, "a value"},
        BadKey{"mid_block_type", nullptr, "a value"}, BadKey{"num_class_embeds", 10, "null"},
        BadKey{"only_cross_attention", {false, true}, "false"},
        BadKey{"resnet_time_scale_shift", "scale_shift", "\"default\""},
        BadKey{"reverse_transformer_layers_per_block", {1, 1}, "null"},
        BadKey{"time_cond_proj_dim", 256, "null"},
        BadKey{"time_embedding_type", "fourier", "\"positional\""},
        BadKey{"transformer_layers_per_block", {{1}, {1}}, "whole numbers in 1"},
        BadKey{"up_block_types", {"UpBlock2D"}, "a list of 2"},
        BadKey{"upcast_attention", true, "false"},
        BadKey{"use_linear_projection", 1, "true or false"},
        BadKey{"some_new_feature", 7, "no such key"}));

TEST_P(RefusedConfigTest, NamesFileKeyValueAndWhatIsSupported) {
  dir_.SetJson("config.json", GetParam().key, GetParam().value);
  EXPECT_THAT(LoadError(), Refuses(dir_, GetParam()));
}

TEST_F(DamagedUNetTest, KeysThatSwitchNothingOnAreFine) {
  dir_.SetJson("config.json", "some_new_feature", nullptr);
  dir_.SetJson("config.json", "another_new_feature", false);
  dir_.SetJson("config.json", "_name_or_path", "somewhere");
  dir_.SetJson("config.json", "dropout", 0.1);
  dir_.SetJson("config.json", "only_cross_attention", {false, false});
  dir_.SetJson("config.json", "layers_per_block", {1, 1});
  EXPECT_TRUE(UNet::Load(dir_.path(), {}).ok()) << UNet::Load(dir_.path(), {}).status();
}

}  // namespace
}  // namespace ddpo
