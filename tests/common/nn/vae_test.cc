#include "common/nn/vae.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

constexpr char kWeights[] = "diffusion_pytorch_model.safetensors";
constexpr char kSomeKey[] = "decoder.mid_block.attentions.0.to_v.weight";

std::string CaseDir(const std::string& name) {
  return SourcePath("tests/goldens/vae/" + name + "/vae");
}

std::unique_ptr<Vae> Load(const std::string& dir, const NetworkOptions& options = {}) {
  absl::StatusOr<std::unique_ptr<Vae>> vae = Vae::Load(dir, options);
  EXPECT_TRUE(vae.ok()) << vae.status();
  return *std::move(vae);
}

class VaeGoldenTest : public ::testing::TestWithParam<std::string> {
 protected:
  const std::string dir_ = CaseDir(GetParam());
  const GoldenFixture encode_ = ReadGoldenFixture("vae/" + GetParam() + "/encode.safetensors");
  const GoldenFixture decode_ = ReadGoldenFixture("vae/" + GetParam() + "/decode.safetensors");
};
INSTANTIATE_TEST_SUITE_P(Shapes, VaeGoldenTest,
                         ::testing::Values("sd15_narrow", "no_attention", "old_names"),
                         [](const auto& test) { return test.param; });

TEST_P(VaeGoldenTest, EncodesToDiffusersPosterior) {
  const Vae::Posterior posterior = Load(dir_)->Encode(encode_.in.at("image"));
  // Two float32 computations in different orders; log-variances go up to 20 and were multiplied
  // by 48 in the last layer.
  EXPECT_LT(MaxAbsDiff(posterior.mean, encode_.out.at("mean")), 1e-5);
  EXPECT_LT(MaxAbsDiff(posterior.logvar, encode_.out.at("logvar")), 5e-4);
  EXPECT_EQ(posterior.logvar.max().item<float>(), 20);
  EXPECT_EQ(posterior.logvar.min().item<float>(), -30);
}

TEST_P(VaeGoldenTest, DecodesToDiffusersImage) {
  const at::Tensor image = Load(dir_)->Decode(decode_.in.at("latents"));
  EXPECT_LT(MaxAbsDiff(image, decode_.out.at("image")), 1e-5);
}

TEST_P(VaeGoldenTest, ReadsShardedWeights) {
  const CopiedFolder sharded(dir_);
  sharded.Shard(kWeights);
  const at::Tensor& latents = decode_.in.at("latents");
  EXPECT_TRUE(at::equal(Load(sharded.path())->Decode(latents), Load(dir_)->Decode(latents)));
}

TEST_P(VaeGoldenTest, HalfPrecisionStaysCloseAndGivesFloat32) {
  const auto vae = Load(dir_, {.dtype = at::kBFloat16});
  const at::Tensor image = vae->Decode(decode_.in.at("latents"));
  EXPECT_EQ(image.scalar_type(), at::kFloat);
  // bfloat16 keeps 8 bits: 0.4 % a layer, on outputs of size 2.
  EXPECT_LT(MaxAbsDiff(image, decode_.out.at("image")), 0.3);
  EXPECT_EQ(vae->Encode(encode_.in.at("image")).mean.scalar_type(), at::kFloat);
}

TEST_P(VaeGoldenTest, ARowDoesNotDependOnTheOtherRow) {
  const auto vae = Load(dir_);
  const at::Tensor& latents = decode_.in.at("latents");
  const at::Tensor both = vae->Decode(latents);
  for (int64_t row : {0, 1}) {
    EXPECT_TRUE(at::equal(vae->Decode(latents.narrow(0, row, 1))[0], both[row])) << row;
  }
}

TEST(VaeTest, KnowsItsSizes) {
  const auto vae = Load(CaseDir("no_attention"));
  EXPECT_EQ(vae->latent_channels(), 3);
  EXPECT_EQ(vae->upscale(), 4);
  EXPECT_EQ(vae->scaling_factor(), 0.7);
}

class DamagedVaeTest : public ::testing::Test {
 protected:
  std::string LoadError() const {
    const absl::Status status = Vae::Load(dir_.path(), {}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  }

  const CopiedFolder dir_{CaseDir("sd15_narrow")};
};

TEST_F(DamagedVaeTest, NamesAMissingTensorAndItsShape) {
  dir_.ChangeTensors(kWeights, [](NamedTensors& tensors) { tensors.erase(kSomeKey); });
  EXPECT_THAT(LoadError(), AllOf(HasSubstr(dir_ / kWeights), HasSubstr(kSomeKey),
                                 HasSubstr("[8,8] is missing")));
}

TEST_F(DamagedVaeTest, NamesBothShapesOfATensor) {
  dir_.ChangeTensors(kWeights, [](NamedTensors& tensors) { tensors[kSomeKey] = at::zeros({8}); });
  EXPECT_THAT(LoadError(), AllOf(HasSubstr(dir_ / kWeights), HasSubstr(kSomeKey),
                                 HasSubstr("[8], expected [8,8]")));
}

TEST_F(DamagedVaeTest, NamesTensorsThatTheConfigHasNoPlaceFor) {
  dir_.SetJson("config.json", "mid_block_add_attention", false);
  EXPECT_THAT(LoadError(), HasSubstr("decoder.mid_block.attentions.0."));
}

TEST_F(DamagedVaeTest, RefusesOldAndNewNamesMixed) {
  dir_.ChangeTensors(kWeights, [](NamedTensors& tensors) {
    tensors["decoder.mid_block.attentions.0.query.weight"] =
        tensors.at("decoder.mid_block.attentions.0.to_q.weight");
  });
  EXPECT_THAT(LoadError(), HasSubstr("decoder.mid_block.attentions.0.query.bias"));
}

class RefusedVaeConfigTest : public DamagedVaeTest, public ::testing::WithParamInterface<BadKey> {};

INSTANTIATE_TEST_SUITE_P(
    Keys, RefusedVaeConfigTest,
    ::testing::Values(
        BadKey{"_class_name", "AutoencoderTiny", "\"AutoencoderKL\""},
        BadKey{"act_fn", "relu", "\"silu\""},
        BadKey{"block_out_channels", {4, 4, 8, 9}, "multiples of norm_num_groups (2)"},
        BadKey{"block_out_channels", 4, "a list of whole numbers"},
        BadKey{"down_block_types", {"DownEncoderBlock2D"}, "\"DownEncoderBlock2D\",\"Down"},
        BadKey{"up_block_types", {"AttnUpDecoderBlock2D"}, "\"UpDecoderBlock2D\",\"Up"},
        BadKey{"latent_channels", 0, "a whole number in 1"},
        BadKey{"layers_per_block", 65, "a whole number in 1 … 64"},
        BadKey{"norm_num_groups", 2.5, "a whole number"}, BadKey{"shift_factor", 0.1, "null"},
        BadKey{"latents_mean", {0, 0, 0, 0}, "null"}, BadKey{"scaling_factor", "0.18", "a number"},
        BadKey{"mid_block_add_attention", 1, "true or false"}));

TEST_P(RefusedVaeConfigTest, NamesFileKeyValueAndWhatIsSupported) {
  dir_.SetJson("config.json", GetParam().key, GetParam().value);
  EXPECT_THAT(LoadError(), Refuses(dir_, GetParam()));
}

}  // namespace
}  // namespace ddpo
