#include "learner/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "common/base/fake_clock.h"
#include "tests/testing/failing_file_system.h"
#include "tests/testing/temp_dir.h"

namespace ddpo {
namespace {

using ::testing::ElementsAre;
using testing::FailingFileSystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

Checkpoint MakeCheckpoint(int64_t epochs_done) {
  Checkpoint checkpoint;
  checkpoint.epochs_done = epochs_done;
  checkpoint.trainer_state = "weights after " + std::to_string(epochs_done);
  checkpoint.prompt_statistics = R"({"a cat":[0.1,0.2]})";
  checkpoint.ledger.set_received(100);
  checkpoint.ledger.set_trained(90);
  (*checkpoint.ledger.mutable_dropped())["duplicate"] = 10;
  checkpoint.config_yaml = "model: m\n";
  checkpoint.model_digest = "abc";
  checkpoint.generation = 4;
  checkpoint.elapsed_seconds = 1.5;
  checkpoint.policies = {{epochs_done - 1, "older policy"}};
  return checkpoint;
}

class CheckpointTest : public ::testing::Test {
 protected:
  std::vector<std::string> Names() {
    std::vector<std::string> names = *FileSystem::Real()->List(dir_.path());
    return names;
  }
  void Damage(const std::string& file, const std::string& contents) {
    std::ofstream(dir_ / file, std::ios::trunc) << contents;
  }
  // Epochs of the newest sound checkpoint.
  int64_t Newest() {
    warnings_.clear();
    const auto checkpoint = store_.ReadNewest(&warnings_);
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    return checkpoint.ok() && checkpoint->has_value() ? (*checkpoint)->epochs_done : -1;
  }

  testing::TempDir dir_;
  CheckpointStore store_{dir_.path(), {.keep = 2}};
  std::vector<std::string> warnings_;
};

TEST_F(CheckpointTest, ReadsBackAllThatWasWritten) {
  const Checkpoint written = MakeCheckpoint(5);
  ASSERT_TRUE(store_.Write(written).ok());
  const auto read = store_.ReadNewest(&warnings_);
  ASSERT_TRUE(read.ok() && read->has_value()) << read.status();
  EXPECT_EQ((*read)->epochs_done, 5);
  EXPECT_EQ((*read)->trainer_state, written.trainer_state);
  EXPECT_EQ((*read)->prompt_statistics, written.prompt_statistics);
  EXPECT_EQ((*read)->ledger.SerializeAsString(), written.ledger.SerializeAsString());
  EXPECT_EQ((*read)->config_yaml, written.config_yaml);
  EXPECT_EQ((*read)->model_digest, written.model_digest);
  EXPECT_EQ((*read)->generation, written.generation);
  EXPECT_EQ((*read)->elapsed_seconds, written.elapsed_seconds);
  EXPECT_EQ((*read)->policies, written.policies);
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(CheckpointTest, FindsNothingInAnEmptyFolder) {
  const auto checkpoint = store_.ReadNewest(&warnings_);
  ASSERT_TRUE(checkpoint.ok());
  EXPECT_FALSE(checkpoint->has_value());
}

TEST_F(CheckpointTest, KeepsTheNewest) {
  for (int epochs : {8, 9, 10}) ASSERT_TRUE(store_.Write(MakeCheckpoint(epochs)).ok());
  EXPECT_THAT(Names(), ElementsAre("epoch_00009", "epoch_00010"));
}

TEST_F(CheckpointTest, PassesOverEveryKindOfDamageLoudly) {
  ASSERT_TRUE(store_.Write(MakeCheckpoint(1)).ok());
  const std::vector<std::pair<std::string, std::string>> damages = {
      {"trainer.safetensors", "weights after"},  // torn
      {"trainer.safetensors", "weights after 3"},
      {"state.json", "{}"},
      {"config.yaml", ""},
      {"policy_00001.safetensors", "Older policy"},
      {"MANIFEST.json", "{\"format\""},
      {"MANIFEST.json", R"({"format": 1, "sha256": {}})"},
      {"MANIFEST.json", R"({"format": 99, "sha256": {}})"},
      {"MANIFEST.json", ""},
  };
  for (const auto& [file, contents] : damages) {
    ASSERT_TRUE(store_.Write(MakeCheckpoint(2)).ok());
    ASSERT_EQ(Newest(), 2);
    Damage("epoch_00002/" + file, contents);
    EXPECT_EQ(Newest(), 1) << file << ": " << contents;
    ASSERT_THAT(warnings_, SizeIs(1));
    EXPECT_THAT(warnings_[0], HasSubstr("epoch_00002"));
  }
}

TEST_F(CheckpointTest, PassesOverOneWithAFileMissing) {
  for (const char* file : {"trainer.safetensors", "state.json", "config.yaml", "MANIFEST.json"}) {
    ASSERT_TRUE(store_.Write(MakeCheckpoint(1)).ok());
    ASSERT_TRUE(store_.Write(MakeCheckpoint(2)).ok());
    std::filesystem::remove(dir_ / ("epoch_00002/" + std::string(file)));
    EXPECT_EQ(Newest(), 1) << file;
  }
}

TEST_F(CheckpointTest, RefusesToStartAfreshWhenAllAreDamaged) {
  ASSERT_TRUE(store_.Write(MakeCheckpoint(1)).ok());
  Damage("epoch_00001/state.json", "");
  const auto checkpoint = store_.ReadNewest(&warnings_);
  EXPECT_EQ(checkpoint.status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(CheckpointTest, RemovesOnesThatAreTooOldButNeverTheNewest) {
  FakeClock clock;
  CheckpointStore store(dir_.path(), {.keep = 3, .max_age = absl::Hours(2)}, FileSystem::Real(),
                        &clock);
  ASSERT_TRUE(store.Write(MakeCheckpoint(1)).ok());
  clock.Advance(absl::Hours(1.5));
  ASSERT_TRUE(store.Write(MakeCheckpoint(2)).ok());
  EXPECT_THAT(Names(), ElementsAre("epoch_00001", "epoch_00002"));
  clock.Advance(absl::Hours(1));
  ASSERT_TRUE(store.Write(MakeCheckpoint(3)).ok());
  EXPECT_THAT(Names(), ElementsAre("epoch_00002", "epoch_00003"));
  clock.Advance(absl::Hours(10));
  ASSERT_TRUE(store.Write(MakeCheckpoint(4)).ok());
  EXPECT_THAT(Names(), ElementsAre("epoch_00004"));
  // One whose manifest does not tell its age counts as young.
  Damage("epoch_00004/MANIFEST.json", "{}");
  clock.Advance(absl::Hours(10));
  ASSERT_TRUE(store.Write(MakeCheckpoint(5)).ok());
  EXPECT_THAT(Names(), ElementsAre("epoch_00004", "epoch_00005"));
}

TEST_F(CheckpointTest, IgnoresAndClearsAwayWhatABrokenWriteLeft) {
  ASSERT_TRUE(store_.Write(MakeCheckpoint(1)).ok());
  std::filesystem::create_directories(dir_ / ".writing-epoch_00002");
  Damage(".writing-epoch_00002/trainer.safetensors", "half");
  EXPECT_EQ(Newest(), 1);
  ASSERT_TRUE(store_.Write(MakeCheckpoint(3)).ok());
  EXPECT_THAT(Names(), ElementsAre("epoch_00001", "epoch_00003"));
}

TEST_F(CheckpointTest, ReplacesADamagedOneOfTheSameEpoch) {
  ASSERT_TRUE(store_.Write(MakeCheckpoint(1)).ok());
  ASSERT_TRUE(store_.Write(MakeCheckpoint(2)).ok());
  Damage("epoch_00002/state.json", "");
  ASSERT_TRUE(store_.Write(MakeCheckpoint(2)).ok());
  EXPECT_EQ(Newest(), 2);
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(CheckpointTest, AWriteThatEndsAnywhereLeavesASoundCheckpoint) {
  ASSERT_TRUE(store_.Write(MakeCheckpoint(1)).ok());
  for (int operations = 0;; ++operations) {
    FailingFileSystem file_system(operations);
    CheckpointStore store(dir_.path(), {.keep = 2}, &file_system);
    const absl::Status written = store.Write(MakeCheckpoint(2));
    const int64_t newest = Newest();
    EXPECT_TRUE(newest == 1 || newest == 2) << "after " << operations << " operations";
    EXPECT_THAT(warnings_, IsEmpty());
    if (!file_system.failed()) {
      EXPECT_TRUE(written.ok());
      EXPECT_EQ(newest, 2);
      break;
    }
    EXPECT_EQ(written.code(), absl::StatusCode::kResourceExhausted);
    std::filesystem::remove_all(dir_ / "epoch_00002");
  }
}

}  // namespace
}  // namespace ddpo
