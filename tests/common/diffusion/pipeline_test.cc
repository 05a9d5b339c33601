#include "common/diffusion/pipeline.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "tests/testing/copied_folder.h"
#include "tests/testing/golden_fixture.h"
#include "tests/testing/paths.h"

namespace ddpo {
namespace {

namespace fs = std::filesystem;
using ::ddpo::testing::CopiedFolder;
using ::ddpo::testing::GoldenFixture;
using ::ddpo::testing::MaxAbsDiff;
using ::ddpo::testing::ReadGoldenFixture;
using ::ddpo::testing::SourcePath;
using ::testing::AllOf;
using ::testing::HasSubstr;

const std::string& TinyDir() {
  static const auto& dir = *new std::string(SourcePath("tests/goldens/pipelines/tiny"));
  return dir;
}

const Pipeline& Tiny() {
  static const auto& pipeline =
      *new std::unique_ptr<Pipeline>(Pipeline::Load(TinyDir(), NetworkOptions()).value());
  return *pipeline;
}

class DenoiseGoldenTest : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Fixtures, DenoiseGoldenTest, ::testing::Values("denoise", "denoise_lora"),
                         [](const auto& instance) { return std::string(instance.param); });

TEST_P(DenoiseGoldenTest, DrawsWhatDiffusersDraws) {
  const GoldenFixture golden =
      ReadGoldenFixture("pipelines/tiny_fixtures/" + std::string(GetParam()) + ".safetensors");
  DenoiseOptions options;
  options.num_steps = golden.params.at("num_inference_steps");
  options.guidance_scale = golden.params.at("guidance_scale");
  options.eta = golden.params.at("eta");
  std::unique_ptr<LoraWeights> lora;
  if (!golden.lora.empty()) {
    lora = std::make_unique<LoraWeights>(LoraFromTensors(Tiny().unet(), golden.lora).value());
  }
  const Trajectory trajectory =
      Tiny()
          .Denoise(golden.params.at("prompts").get<std::vector<std::string>>(),
                   {golden.in.at("latents"), golden.in.at("noise")}, options, lora.get())
          .value();
  EXPECT_LE(MaxAbsDiff(trajectory.latents, golden.out.at("latents")), 1e-4);
  EXPECT_LE(MaxAbsDiff(trajectory.log_probs, golden.out.at("log_probs")), 1e-5);
  const at::Tensor images = Tiny().DecodeImages(trajectory.latents.select(1, options.num_steps));
  EXPECT_EQ(images.scalar_type(), at::kByte);
  // A colour at a rounding border may fall to either side.
  EXPECT_LE(MaxAbsDiff(images, golden.out.at("images")), 1);
  const at::Tensor same = images.eq(golden.out.at("images")).to(at::kDouble).mean();
  EXPECT_GT(same.item<double>(), 0.999);
}

TEST(PipelineTest, NoiseIsThatOfPythonsGeneratorAtTheSameSeed) {
  const DenoiseNoise noise = Tiny().DrawNoise({7, 8}, 3);
  EXPECT_EQ(noise.latents.sizes(), at::IntArrayRef({2, 4, 4, 4}));
  EXPECT_EQ(noise.steps.sizes(), at::IntArrayRef({3, 2, 4, 4, 4}));
  const GoldenFixture golden = ReadGoldenFixture("pipelines/tiny_fixtures/noise.safetensors");
  EXPECT_TRUE(at::equal(noise.latents, golden.out.at("latents")));
  EXPECT_TRUE(at::equal(noise.steps, golden.out.at("noise")));
}

TEST(PipelineTest, ASamplesNoiseDependsOnItsSeedOnly) {
  const DenoiseNoise together = Tiny().DrawNoise({7, 8, 9}, 3);
  const DenoiseNoise alone = Tiny().DrawNoise({9}, 3);
  EXPECT_TRUE(at::equal(together.latents[2], alone.latents[0]));
  EXPECT_TRUE(at::equal(together.steps.select(1, 2), alone.steps.select(1, 0)));
}

TEST(PipelineTest, ASamplesTrajectoryHasTheSameBitsInAnyCompany) {
  const DenoiseOptions options{.num_steps = 3};
  const Trajectory together = Tiny()
                                  .Denoise({"a cat", "an ant", "two dogs"},
                                           Tiny().DrawNoise({1, 2, 3}, 3), options, nullptr)
                                  .value();
  const Trajectory alone =
      Tiny().Denoise({"an ant"}, Tiny().DrawNoise({2}, 3), options, nullptr).value();
  EXPECT_TRUE(at::equal(together.latents[1], alone.latents[0]));
  EXPECT_TRUE(at::equal(together.log_probs[1], alone.log_probs[0]));
}

TEST(PipelineTest, EncodesEachPromptForItself) {
  const at::Tensor embeddings = Tiny().EncodePrompts({"a cat", "an ant", "a cat"});
  EXPECT_EQ(embeddings.sizes(), at::IntArrayRef({3, 8, 12}));
  EXPECT_TRUE(at::equal(embeddings[0], embeddings[2]));
  EXPECT_FALSE(at::equal(embeddings[0], embeddings[1]));
  EXPECT_TRUE(at::equal(embeddings[1], Tiny().EncodePrompts({"an ant"})[0]));
}

TEST(PipelineTest, GuidanceOfOneIsTheConditionalPredictionAlone) {
  const at::Tensor latents = at::randn({2, 4, 4, 4});
  const at::Tensor t = at::tensor({501, 21}, at::kLong);
  const at::Tensor cond = Tiny().EncodePrompts({"a cat", "an ant"});
  const at::Tensor uncond = Tiny().EncodePrompts({"", ""});
  const at::Tensor conditional = Tiny().unet().Forward(latents, t, cond, nullptr);
  const at::Tensor unconditional = Tiny().unet().Forward(latents, t, uncond, nullptr);
  EXPECT_TRUE(at::equal(Tiny().PredictNoise(latents, t, uncond, cond, 1.0, nullptr), conditional));
  EXPECT_LE(MaxAbsDiff(Tiny().PredictNoise(latents, t, uncond, cond, 5.0, nullptr),
                       unconditional + 5 * (conditional - unconditional)),
            1e-6);
}

// Denoise computes the text's keys and values once for all steps.
TEST(PipelineTest, DenoisesToTheBitsOfItsStepsOneByOne) {
  const LoraWeights lora = RandomLora(Tiny().unet(), 2, 2, 1);
  const std::vector<std::string> prompts = {"a cat", "an ant", "two dogs"};
  const at::Tensor cond = Tiny().EncodePrompts(prompts);
  const at::Tensor uncond = Tiny().EncodePrompts({"", "", ""});
  const DenoiseNoise noise = Tiny().DrawNoise({4, 5, 6}, 3);
  const std::vector<int64_t> timesteps = Tiny().scheduler().Timesteps(3).value();
  for (const double guidance_scale : {1.0, 5.0}) {
    const DenoiseOptions options{.num_steps = 3, .guidance_scale = guidance_scale};
    const Trajectory trajectory = Tiny().Denoise(prompts, noise, options, &lora).value();
    at::Tensor latents = noise.latents;
    for (int64_t step = 0; step < 3; ++step) {
      EXPECT_TRUE(at::equal(trajectory.latents.select(1, step), latents)) << step;
      const at::Tensor t = at::full({3}, timesteps[static_cast<size_t>(step)], at::kLong);
      const DdimStep result = Tiny().scheduler().Step(
          latents, Tiny().PredictNoise(latents, t, uncond, cond, guidance_scale, &lora), t, 3,
          options.eta, noise.steps[step]);
      EXPECT_TRUE(at::equal(trajectory.log_probs.select(1, step), result.log_prob)) << step;
      latents = result.prev_sample;
    }
    EXPECT_TRUE(at::equal(trajectory.latents.select(1, 3), latents));
  }
}

TEST(PipelineTest, EndsBetweenStepsWhenToldTo) {
  int steps = 0;
  const auto result = Tiny().Denoise(
      {"a cat"}, Tiny().DrawNoise({1}, 5), {.num_steps = 5}, nullptr, [&steps](int step) {
        ++steps;
        return step < 2 ? absl::OkStatus() : absl::CancelledError("enough");
      });
  EXPECT_EQ(result.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(steps, 3);
}

TEST(PipelineTest, RefusesNoiseOfAnotherShape) {
  const auto result =
      Tiny().Denoise({"a cat", "an ant"}, Tiny().DrawNoise({1}, 5), {.num_steps = 5}, nullptr);
  EXPECT_THAT(std::string(result.status().message()),
              AllOf(HasSubstr("x_T has shape [1,4,4,4]"), HasSubstr("expected [2,4,h,w]")));
}

TEST(PipelineTest, RecordsNoGradients) {
  const LoraWeights lora = RandomLora(Tiny().unet(), 2, 2, 1);
  for (const auto& [key, tensor] : lora.tensors) tensor.requires_grad_(true);
  const auto result = Tiny().Denoise({"a cat"}, Tiny().DrawNoise({1}, 2), {.num_steps = 2}, &lora);
  EXPECT_FALSE(result->log_probs.requires_grad());
}

// A copy of the tiny pipeline's folder, to be damaged.
class CopiedPipelineTest : public ::testing::Test {
 protected:
  absl::Status Load() const { return Pipeline::Load(dir_.path(), NetworkOptions()).status(); }

  const CopiedFolder dir_{TinyDir()};
};

TEST_F(CopiedPipelineTest, RefusesAnotherFamilyWithTheReason) {
  dir_.SetJson("model_index.json", "_class_name", "StableDiffusionXLPipeline");
  EXPECT_EQ(Load().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Load().message()),
              AllOf(HasSubstr(dir_.path() + "/model_index.json: _class_name is "
                                            "\"StableDiffusionXLPipeline\""),
                    HasSubstr("only the Stable Diffusion 1.x family")));
}

TEST_F(CopiedPipelineTest, RefusesAComponentOfAnotherClass) {
  dir_.SetJson("model_index.json", "text_encoder", {"transformers", "T5EncoderModel"});
  EXPECT_THAT(std::string(Load().message()),
              HasSubstr("text_encoder is [\"transformers\",\"T5EncoderModel\"], expected "
                        "CLIPTextModel"));
}

TEST_F(CopiedPipelineTest, RefusesAComponentThatIsNotThere) {
  dir_.SetJson("model_index.json", "vae", {nullptr, nullptr});
  EXPECT_THAT(std::string(Load().message()), HasSubstr("vae is [null,null]"));
}

TEST_F(CopiedPipelineTest, NamesTheFileThatIsMissing) {
  fs::remove(dir_ / "scheduler/scheduler_config.json");
  EXPECT_EQ(Load().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Load().message()), HasSubstr("scheduler/scheduler_config.json"));
  fs::remove(dir_ / "model_index.json");
  EXPECT_THAT(std::string(Load().message()),
              HasSubstr("model_index.json: no such file; expected a folder in diffusers' layout"));
  fs::remove_all(dir_.path());
  EXPECT_EQ(Load().code(), absl::StatusCode::kNotFound);
}

TEST_F(CopiedPipelineTest, RefusesPromptsLongerThanTheTextEncoderTakes) {
  dir_.SetJson("tokenizer/tokenizer_config.json", "model_max_length", 9);
  EXPECT_EQ(Load().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Load().message()),
              HasSubstr(dir_.path() + "/tokenizer: model_max_length is 9, expected at most the "
                                      "text encoder's max_position_embeddings, 8"));
}

TEST_F(CopiedPipelineTest, RefusesTokensThatTheTextEncoderDoesNotHave) {
  dir_.SetJson("tokenizer/vocab.json", "cats</w>", 5000);
  EXPECT_EQ(Load().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Load().message()),
              HasSubstr(dir_.path() + "/tokenizer: holds a token of number 5000, expected less "
                                      "than the text encoder's vocab_size, "));
}

TEST_F(CopiedPipelineTest, TheDigestFollowsEveryFileThatIsRead) {
  const std::string digest = Pipeline::ModelDigest(dir_.path()).value();
  EXPECT_EQ(digest.size(), 64u);
  EXPECT_EQ(digest, Pipeline::ModelDigest(TinyDir()).value());
  std::ofstream(dir_ / "README.md") << "not read";
  EXPECT_EQ(digest, Pipeline::ModelDigest(dir_.path()).value());
  dir_.SetJson("scheduler/scheduler_config.json", "steps_offset", 0);
  const std::string other = Pipeline::ModelDigest(dir_.path()).value();
  EXPECT_NE(digest, other);
  std::ofstream(dir_ / "unet/diffusion_pytorch_model.safetensors", std::ios::app) << "x";
  EXPECT_NE(other, Pipeline::ModelDigest(dir_.path()).value());
}

}  // namespace
}  // namespace ddpo
