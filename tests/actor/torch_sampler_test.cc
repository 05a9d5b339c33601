#include "actor/torch_sampler.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "common/nn/lora.h"
#include "common/nn/unet.h"
#include "common/tensors/safetensors.h"
#include "tests/testing/copied_folder.h"
#include "tests/testing/paths.h"

namespace ddpo {
namespace {

using ::testing::HasSubstr;

constexpr TorchSamplerOptions kOptions{.denoise = {.num_steps = 3}};
const std::string kTiny = ddpo::testing::SourcePath("tests/goldens/pipelines/tiny");
constexpr char kUNetFile[] = "unet/diffusion_pytorch_model.safetensors";

std::unique_ptr<Pipeline> LoadTiny() { return Pipeline::Load(kTiny, NetworkOptions()).value(); }

// A policy that draws something else than the base model.
std::string MakePolicy(uint64_t seed) {
  LoraWeights lora = RandomLora(LoadTiny()->unet(), 2, 2, seed);
  for (auto& [key, tensor] : lora.tensors) tensor = at::full_like(tensor, 0.05 * (seed + 1));
  return SerializeLora(lora);
}

// All of a UNet's weights, some way from the base model's.
NamedTensors MakeUNet(uint64_t seed) {
  at::manual_seed(seed);
  NamedTensors weights = ReadSafetensors(kTiny + "/" + kUNetFile).value().tensors;
  for (auto& [key, tensor] : weights) {
    tensor = tensor.to(at::kFloat);
    tensor = tensor + 0.05 * at::randn_like(tensor);
  }
  return weights;
}

SampledBatch Sample(Sampler& sampler, const std::vector<std::string>& prompts,
                    const std::vector<uint64_t>& seeds) {
  return sampler.Sample(prompts, seeds, {}).value();
}

TEST(TorchSamplerTest, GivesEachSampleItsTrajectoryAndImage) {
  const auto sampler = CreateTorchSampler(kOptions, LoadTiny());
  const SampledBatch batch = Sample(*sampler, {"a cat", "an ant"}, {1, 2});
  EXPECT_EQ(batch.num_steps, 3);
  EXPECT_EQ(batch.latent_channels, 4);
  EXPECT_EQ(batch.latent_height, 4);
  EXPECT_EQ(batch.latent_width, 4);
  ASSERT_EQ(batch.samples.size(), 2u);
  for (const SampledTrajectory& sample : batch.samples) {
    EXPECT_EQ(sample.latents.size(), 4u * 64);
    EXPECT_EQ(sample.log_probs.size(), 3u);
    EXPECT_EQ(sample.image.width, 8);
    EXPECT_EQ(sample.image.height, 8);
    EXPECT_EQ(sample.image.rgb.size(), 8u * 8 * 3);
  }
}

TEST(TorchSamplerTest, ATaskDeterminesItsTrajectory) {
  const auto first = CreateTorchSampler(kOptions, LoadTiny());
  const auto second = CreateTorchSampler(kOptions, LoadTiny());
  Sample(*second, {"two dogs"}, {99});
  const SampledBatch a = Sample(*first, {"a cat", "an ant"}, {1, 2});
  const SampledBatch b = Sample(*second, {"a cat", "an ant"}, {1, 2});
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(a.samples[i].latents, b.samples[i].latents);
    EXPECT_EQ(a.samples[i].log_probs, b.samples[i].log_probs);
    EXPECT_EQ(a.samples[i].image.rgb, b.samples[i].image.rgb);
  }
}

TEST(TorchSamplerTest, SamplesWithThePolicyThatWasSetLast) {
  const auto sampler = CreateTorchSampler(kOptions, LoadTiny());
  const SampledBatch base = Sample(*sampler, {"a cat"}, {1});
  ASSERT_TRUE(sampler->SetPolicy(MakePolicy(0)).ok());
  const SampledBatch first = Sample(*sampler, {"a cat"}, {1});
  ASSERT_TRUE(sampler->SetPolicy(MakePolicy(1)).ok());
  const SampledBatch second = Sample(*sampler, {"a cat"}, {1});
  EXPECT_NE(base.samples[0].latents, first.samples[0].latents);
  EXPECT_NE(first.samples[0].latents, second.samples[0].latents);
  ASSERT_TRUE(sampler->SetPolicy(MakePolicy(0)).ok());
  EXPECT_EQ(Sample(*sampler, {"a cat"}, {1}).samples[0].latents, first.samples[0].latents);
}

// With and without merging, twice, and after a LoRA: nothing of an earlier policy is left.
TEST(TorchSamplerTest, SamplesWithAWholeUNetAsAPipelineThatWasLoadedWithIt) {
  for (const bool merge : {false, true}) {
    TorchSamplerOptions options = kOptions;
    options.merge_lora = merge;
    const auto sampler = CreateTorchSampler(options, LoadTiny());
    ASSERT_TRUE(sampler->SetPolicy(MakePolicy(0)).ok());
    for (const uint64_t seed : {1, 2}) {
      const NamedTensors weights = MakeUNet(seed);
      ASSERT_TRUE(sampler->SetPolicy(SerializeUNetWeights(weights)).ok());
      const testing::CopiedFolder folder(kTiny);
      folder.ChangeTensors(kUNetFile, [&](NamedTensors& tensors) { tensors = weights; });
      const auto loaded = Pipeline::Load(folder.path(), NetworkOptions()).value();
      const Trajectory expected = loaded
                                      ->Denoise({"a cat", "an ant"}, loaded->DrawNoise({1, 2}, 3),
                                                kOptions.denoise, nullptr)
                                      .value();
      const SampledBatch batch = Sample(*sampler, {"a cat", "an ant"}, {1, 2});
      for (int i = 0; i < 2; ++i) {
        EXPECT_TRUE(at::equal(at::tensor(batch.samples[i].latents), expected.latents[i].flatten()));
        EXPECT_TRUE(at::equal(at::tensor(batch.samples[i].log_probs), expected.log_probs[i]));
      }
    }
  }
}

TEST(TorchSamplerTest, KeepsItsUNetWhenANewOneDoesNotFit) {
  const auto sampler = CreateTorchSampler(kOptions, LoadTiny());
  NamedTensors weights = MakeUNet(1);
  ASSERT_TRUE(sampler->SetPolicy(SerializeUNetWeights(weights)).ok());
  const SampledBatch before = Sample(*sampler, {"a cat"}, {1});
  weights = MakeUNet(2);
  weights.erase("conv_in.weight");
  EXPECT_THAT(std::string(sampler->SetPolicy(SerializeUNetWeights(weights)).message()),
              HasSubstr("conv_in.weight"));
  EXPECT_EQ(Sample(*sampler, {"a cat"}, {1}).samples[0].latents, before.samples[0].latents);
}

TEST(TorchSamplerTest, AMergedPolicyHasTheSameLogProbabilitiesWithinItsTolerance) {
  TorchSamplerOptions merging = kOptions;
  merging.merge_lora = true;
  const auto merged = CreateTorchSampler(merging, LoadTiny());
  const auto unmerged = CreateTorchSampler(kOptions, LoadTiny());
  // Twice: the second policy replaces the first, it is not added to it.
  for (uint64_t seed : {0, 1}) {
    ASSERT_TRUE(merged->SetPolicy(MakePolicy(seed)).ok());
    ASSERT_TRUE(unmerged->SetPolicy(MakePolicy(seed)).ok());
    const SampledBatch a = Sample(*merged, {"a cat", "an ant"}, {1, 2});
    const SampledBatch b = Sample(*unmerged, {"a cat", "an ant"}, {1, 2});
    for (int i = 0; i < 2; ++i) {
      for (int step = 0; step < 3; ++step) {
        EXPECT_NEAR(a.samples[i].log_probs[step], b.samples[i].log_probs[step], 1e-5);
      }
    }
  }
}

TEST(TorchSamplerTest, KeepsTheOldPolicyWhenANewOneIsDamaged) {
  for (const bool merge : {false, true}) {
    TorchSamplerOptions options = kOptions;
    options.merge_lora = merge;
    const auto sampler = CreateTorchSampler(options, LoadTiny());
    ASSERT_TRUE(sampler->SetPolicy(MakePolicy(0)).ok());
    const SampledBatch before = Sample(*sampler, {"a cat"}, {1});
    EXPECT_FALSE(sampler->SetPolicy(MakePolicy(1).substr(0, 500)).ok());
    EXPECT_EQ(Sample(*sampler, {"a cat"}, {1}).samples[0].latents, before.samples[0].latents);
  }
}

TEST(TorchSamplerTest, StopsBetweenStepsWhenCancelled) {
  const auto sampler = CreateTorchSampler(kOptions, LoadTiny());
  int asked = 0;
  const auto result = sampler->Sample({"a cat"}, {1}, [&asked] { return ++asked == 2; });
  EXPECT_EQ(result.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(asked, 2);
}

TEST(TorchSamplerTest, RefusesPromptsWithoutSeeds) {
  const auto sampler = CreateTorchSampler(kOptions, LoadTiny());
  EXPECT_THAT(std::string(sampler->Sample({"a cat"}, {1, 2}, {}).status().message()),
              HasSubstr("1 prompts and 2 seeds"));
  EXPECT_FALSE(sampler->Sample({}, {}, {}).ok());
}

}  // namespace
}  // namespace ddpo
