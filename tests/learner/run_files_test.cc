#include "learner/run_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "tests/testing/temp_dir.h"

namespace ddpo {
namespace {

using ::testing::ElementsAre;

class RunFilesTest : public ::testing::Test {
 protected:
  RunFilesTest() { EXPECT_TRUE(files_.Prepare().ok()); }

  testing::TempDir dir_;
  RunFiles files_{dir_.path(), /*full_finetuning=*/false};
};

TEST_F(RunFilesTest, EveryStartHasAGenerationOfItsOwn) {
  EXPECT_EQ(*files_.NextGeneration(), 1);
  EXPECT_EQ(*files_.NextGeneration(), 2);
  EXPECT_EQ(*RunFiles(dir_.path(), false).NextGeneration(), 3);
}

TEST_F(RunFilesTest, FailuresAreCountedOverAllStarts) {
  EXPECT_TRUE(files_.Failures()->empty());
  ASSERT_TRUE(files_.CountFailure("non_finite").ok());
  ASSERT_TRUE(RunFiles(dir_.path(), false).CountFailure("non_finite").ok());
  ASSERT_TRUE(files_.CountFailure("tasks").ok());
  EXPECT_THAT(*RunFiles(dir_.path(), false).Failures(),
              ElementsAre(std::pair("non_finite", 2), std::pair("tasks", 1)));
}

TEST_F(RunFilesTest, FailuresThatCannotBeReadAreAnError) {
  ASSERT_TRUE(WriteFileAtomically(dir_ / "failures.json", "{\"tasks\": \"x\"}").ok());
  EXPECT_EQ(files_.Failures().status().code(), absl::StatusCode::kDataLoss);
  ASSERT_TRUE(WriteFileAtomically(dir_ / "failures.json", "3").ok());
  EXPECT_EQ(files_.CountFailure("tasks").code(), absl::StatusCode::kDataLoss);
}

TEST_F(RunFilesTest, AGenerationThatCannotBeReadIsAnError) {
  ASSERT_TRUE(WriteFileAtomically(dir_ / "generation", "x\n").ok());
  EXPECT_EQ(files_.NextGeneration().status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(RunFilesTest, AResumedRunHasNoEpochTwiceAndNoTornLine) {
  for (const char* line :
       {R"({"epoch":0})", R"({"epoch":1})", R"({"epoch":2})", R"({"epoch":3,"rew)"}) {
    ASSERT_TRUE(files_.AppendMetrics(line).ok());
  }
  ASSERT_TRUE(files_.TruncateMetrics(/*epochs_done=*/2).ok());
  EXPECT_EQ(*ReadFile(dir_ / "metrics.jsonl"), "{\"epoch\":0}\n{\"epoch\":1}\n");
  ASSERT_TRUE(files_.AppendMetrics(R"({"epoch":2})").ok());
  EXPECT_EQ(*ReadFile(dir_ / "metrics.jsonl"), "{\"epoch\":0}\n{\"epoch\":1}\n{\"epoch\":2}\n");
}

TEST_F(RunFilesTest, ARunWithoutMetricsHasNothingToRemove) {
  EXPECT_TRUE(files_.TruncateMetrics(0).ok());
}

TEST_F(RunFilesTest, NamesLoraFilesByTheEpochsBehindThem) {
  ASSERT_TRUE(files_.WritePolicy(0, "a").ok());
  ASSERT_TRUE(files_.WritePolicy(12, "b").ok());
  EXPECT_FALSE(files_.HasFinalPolicy());
  ASSERT_TRUE(files_.WriteFinalPolicy("b").ok());
  EXPECT_TRUE(files_.HasFinalPolicy());
  EXPECT_THAT(*FileSystem::Real()->List(dir_ / "lora"),
              ElementsAre("epoch_0000.safetensors", "epoch_0012.safetensors", "final.safetensors"));
}

TEST_F(RunFilesTest, WholeUNetsHaveAFolderOfTheirOwn) {
  RunFiles files(dir_ / "full", /*full_finetuning=*/true);
  ASSERT_TRUE(files.Prepare().ok());
  ASSERT_TRUE(files.WritePolicy(12, "b").ok());
  EXPECT_FALSE(files.HasFinalPolicy());
  ASSERT_TRUE(files.WriteFinalPolicy("b").ok());
  EXPECT_TRUE(files.HasFinalPolicy());
  EXPECT_THAT(*FileSystem::Real()->List(dir_ / "full/unet"),
              ElementsAre("epoch_0012.safetensors", "final.safetensors"));
  EXPECT_FALSE(FileSystem::Real()->Exists(dir_ / "full/lora"));
}

}  // namespace
}  // namespace ddpo
