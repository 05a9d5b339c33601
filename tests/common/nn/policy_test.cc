#include "common/nn/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "tests/testing/paths.h"
#include "tests/testing/temp_dir.h"

namespace ddpo {
namespace {

using ::ddpo::testing::SourcePath;
using ::ddpo::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;

const std::string kUNet = SourcePath("tests/goldens/unet/two_levels/unet");
constexpr char kLoraKey[] =
    "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v.lora_A.weight";

std::unique_ptr<UNet> LoadUNet() { return UNet::Load(kUNet, {}).value(); }

NamedTensors BaseWeights() {
  return ReadSafetensors(kUNet + "/diffusion_pytorch_model.safetensors").value().tensors;
}

at::Tensor Predict(const UNet& unet) {
  return unet.Forward(at::ones({1, unet.in_channels(), 8, 8}), at::full({1}, 501, at::kLong),
                      at::ones({1, 3, unet.cross_attention_dim()}), nullptr);
}

TEST(ApplyPolicyTest, ALoraLeavesTheUNetsOwnWeights) {
  const std::unique_ptr<UNet> unet = LoadUNet();
  const at::Tensor before = Predict(*unet);
  const LoraWeights written = RandomLora(*unet, 2, 3, 1);
  const auto lora = ApplyPolicy(*unet, ParseSafetensors(SerializeLora(written)).value());
  ASSERT_TRUE(lora.ok()) << lora.status();
  ASSERT_TRUE(lora->has_value());
  EXPECT_EQ((*lora)->alpha, 3);
  EXPECT_TRUE(at::equal((*lora)->tensors.at(kLoraKey), written.tensors.at(kLoraKey)));
  EXPECT_TRUE(at::equal(Predict(*unet), before));
}

// As this project writes them, and as diffusers does, without our metadata.
TEST(ApplyPolicyTest, AWholeUNetReplacesTheWeights) {
  NamedTensors weights = BaseWeights();
  weights["conv_out.bias"] = weights["conv_out.bias"].to(at::kFloat) + 1;
  for (const std::string& file : {SerializeUNetWeights(weights), SerializeSafetensors(weights)}) {
    const std::unique_ptr<UNet> unet = LoadUNet();
    const at::Tensor before = Predict(*unet);
    const auto lora = ApplyPolicy(*unet, ParseSafetensors(file).value());
    ASSERT_TRUE(lora.ok()) << lora.status();
    EXPECT_FALSE(lora->has_value());
    EXPECT_TRUE(at::allclose(Predict(*unet), before + 1));
  }
}

TEST(ApplyPolicyFileTest, ErrorsNameTheFileAndTheTensor) {
  const TempDir dir;
  const std::unique_ptr<UNet> unet = LoadUNet();
  const auto error = [&](const std::string& path) {
    return std::string(ApplyPolicyFile(*unet, path).status().message());
  };
  NamedTensors lora = RandomLora(*unet, 2, 2, 1).tensors;
  lora.erase(kLoraKey);
  ASSERT_TRUE(WriteSafetensors(dir / "lora", lora).ok());
  EXPECT_THAT(error(dir / "lora"), AllOf(HasSubstr(dir / "lora"), HasSubstr(kLoraKey)));
  NamedTensors weights = BaseWeights();
  weights["conv_out.bias"] = at::zeros({5});
  ASSERT_TRUE(WriteSafetensors(dir / "unet", weights).ok());
  EXPECT_THAT(error(dir / "unet"), AllOf(HasSubstr(dir / "unet"), HasSubstr("conv_out.bias")));
  EXPECT_THAT(error(dir / "none"), HasSubstr(dir / "none"));
}

}  // namespace
}  // namespace ddpo
