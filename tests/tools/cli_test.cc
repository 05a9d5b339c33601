// `ddpo sample`, `export`, `status` and what all commands say to bad input.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

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
