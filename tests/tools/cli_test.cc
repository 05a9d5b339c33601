// `ddpo sample`, `export`, `status` and what all commands say to bad input.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "common/tensors/png.h"
#include "tests/testing/temp_dir.h"
#include "tests/tools/run_ddpo.h"

namespace ddpo {
namespace {

using ::ddpo::testing::CommandResult;
using ::ddpo::testing::RunDdpo;
using ::ddpo::testing::SourcePath;
using ::ddpo::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;

const std::string kModel = SourcePath("tests/goldens/pipelines/tiny");

std::string Contents(const std::string& path) { return ReadFile(path).value_or("missing"); }

TEST(Sample, WritesEveryImageAndAGrid) {
  const TempDir out;
  const CommandResult result =
      RunDdpo({"sample", "--model", kModel, "--prompt", "a cat", "--prompt", "an ant", "--number",
               "2", "--steps", "3", "--out", out.path()});
  ASSERT_EQ(result.exit_code, 0) << result.output;
  for (const char* name : {"sample_0000", "sample_0001", "sample_0002", "sample_0003", "grid"}) {
    EXPECT_TRUE(std::filesystem::exists(out / (std::string(name) + ".png"))) << name;
  }
}

TEST(Sample, AnImageFollowsFromItsPromptAndSeedAlone) {
  const TempDir out;
  ASSERT_EQ(RunDdpo({"sample", "--model", kModel, "--prompt", "a cat", "--seed", "7", "--number",
                     "3", "--steps", "3", "--out", out / "many"})
                .exit_code,
            0);
  ASSERT_EQ(RunDdpo({"sample", "--model", kModel, "--prompt", "a cat", "--seed", "9", "--steps",
                     "3", "--out", out / "one"})
                .exit_code,
            0);
  EXPECT_EQ(Contents(out / "many/sample_0002.png"), Contents(out / "one/sample_0000.png"));
  EXPECT_NE(Contents(out / "many/sample_0001.png"), Contents(out / "one/sample_0000.png"));
}

TEST(Sample, NamesAModelFolderThatIsNotThere) {
  const CommandResult result =
      RunDdpo({"sample", "--model", "/nowhere", "--prompt", "a cat", "--out", TempDir().path()});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, AllOf(HasSubstr("ddpo sample:"), HasSubstr("/nowhere")));
}

TEST(Sample, RefusesAStrangeDtype) {
  const CommandResult result = RunDdpo({"sample", "--model", kModel, "--prompt", "a cat", "--dtype",
                                        "int4", "--out", TempDir().path()});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr("`int4`"));
}

const std::string kUNetFile = kModel + "/unet/diffusion_pytorch_model.safetensors";

TEST(Sample, TakesTheWeightsOfAUNetByTheirOwnFlag) {
  const TempDir out;
  const std::vector<std::string> sample = {"sample",  "--model", kModel,  "--prompt", "a cat",
                                           "--steps", "2",       "--out", out.path()};
  const auto with = [&](const std::string& flag, const std::string& file) {
    std::vector<std::string> arguments = sample;
    arguments.insert(arguments.end(), {flag, file});
    return RunDdpo(arguments);
  };
  ASSERT_EQ(RunDdpo(sample).exit_code, 0);
  const std::string base = Contents(out / "sample_0000.png");
  EXPECT_EQ(with("--unet", kUNetFile).exit_code, 0);
  EXPECT_EQ(Contents(out / "sample_0000.png"), base);
  const CommandResult as_lora = with("--lora", kUNetFile);
  EXPECT_EQ(as_lora.exit_code, 1);
  EXPECT_THAT(as_lora.output, AllOf(HasSubstr(kUNetFile), HasSubstr("--unet takes")));
  const std::string other = SourcePath("tests/goldens/parity/unet_lora.safetensors");
  const CommandResult as_unet = with("--unet", other);
  EXPECT_EQ(as_unet.exit_code, 1);
  EXPECT_THAT(as_unet.output, AllOf(HasSubstr(other), HasSubstr("--lora takes a LoRA")));
}

TEST(Export, RefusesADamagedFileAndAUNetOfAnotherModelByTheirNames) {
  const TempDir dir;
  const auto message = [&](const std::string& file) {
    const CommandResult result =
        RunDdpo({"export", file, "--model", kModel, "--out", dir / "exported"});
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_FALSE(std::filesystem::exists(dir / "exported"));
    return result.output;
  };
  const std::string half = dir / "half.safetensors";
  ASSERT_TRUE(
      WriteFileAtomically(half, Contents(kUNetFile).substr(0, Contents(kUNetFile).size() / 2))
          .ok());
  EXPECT_THAT(message(half), HasSubstr(half));
  const std::string other =
      SourcePath("tests/goldens/unet/two_levels/unet/diffusion_pytorch_model.safetensors");
  EXPECT_THAT(message(other), HasSubstr(other));
}

TEST(Export, RefusesALoraOfAnotherModel) {
  const CommandResult result =
      RunDdpo({"export", SourcePath("tests/goldens/parity/unet.safetensors"), "--model", kModel,
               "--out", TempDir() / "lora.safetensors"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr("ddpo export:"));
}

TEST(Export, AsksForTheModelOfALooseFile) {
  const CommandResult result =
      RunDdpo({"export", "lora.safetensors", "--out", TempDir() / "lora.safetensors"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr("--model"));
}

TEST(Status, SaysThatNobodyAnswers) {
  const CommandResult result = RunDdpo({"status", "--learner", "127.0.0.1:1"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr("127.0.0.1:1"));
}

TEST(Report, RefusesAFolderThatIsNoRun) {
  const TempDir dir;
  const CommandResult result = RunDdpo({"report", dir.path()});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, AllOf(HasSubstr(dir.path()), HasSubstr("config.yaml")));
}

TEST(Up, NamesTheKeyOfABadSetting) {
  const CommandResult result =
      RunDdpo({"up", "--set", "run.epochs=0", "--run-dir", TempDir() / "run"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr("run.epochs"));
}

TEST(Up, RefusesToGoOnWithAnotherConfig) {
  const TempDir dir;
  const std::string run = dir / "run";
  std::filesystem::create_directories(run);
  ASSERT_TRUE(
      WriteFileAtomically(run + "/config.yaml", "model: " + kModel + "\nprompts: {list: [a cat]}\n")
          .ok());
  const CommandResult result = RunDdpo({"up", "--config", run + "/config.yaml", "--set",
                                        "training.learning_rate=0.5", "--run-dir", run});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr("training.learning_rate"));
}

TEST(Ddpo, WithoutACommandShowsHelp) {
  EXPECT_NE(RunDdpo({}).exit_code, 0);
  const CommandResult help = RunDdpo({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  for (const char* command : {"up", "sample", "report", "status", "bench", "parity", "export"}) {
    EXPECT_THAT(help.output, HasSubstr(command));
  }
}

}  // namespace
}  // namespace ddpo
