#include "learner/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_replace.h"
#include "common/base/fake_clock.h"
#include "common/base/files.h"
#include "common/base/sha256.h"
#include "tests/testing/crashing_file_system.h"
#include "tests/testing/failing_file_system.h"
#include "tests/testing/temp_dir.h"

namespace ddpo {
namespace {

using testing::CrashingFileSystem;
using ::testing::Each;
using ::testing::ElementsAre;
using testing::FailingFileSystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

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
  checkpoint.scorer_digest = "def";
  checkpoint.generation = 4;
  checkpoint.elapsed_seconds = 1.5;
  checkpoint.policies = {{epochs_done - 1, "older policy"}};
  return checkpoint;
}

// One of the same epochs with other contents.
Checkpoint MakeOther(int64_t epochs_done) {
  Checkpoint checkpoint = MakeCheckpoint(epochs_done);
  checkpoint.trainer_state = "other weights after " + std::to_string(epochs_done);
  checkpoint.generation = 5;
  checkpoint.policies = {{epochs_done - 2, "even older policy"}};
  return checkpoint;
}

// All of it, to be compared; nothing for none.
std::vector<std::string> Contents(const std::optional<Checkpoint>& checkpoint) {
  if (!checkpoint.has_value()) return {};
  std::vector<std::string> contents = {std::to_string(checkpoint->epochs_done),
                                       checkpoint->trainer_state,
                                       checkpoint->prompt_statistics,
                                       checkpoint->ledger.SerializeAsString(),
                                       checkpoint->config_yaml,
                                       checkpoint->model_digest,
                                       checkpoint->scorer_digest,
                                       std::to_string(checkpoint->generation),
                                       std::to_string(checkpoint->elapsed_seconds)};
  for (const auto& [version, policy] : checkpoint->policies) {
    contents.push_back(std::to_string(version));
    contents.push_back(policy);
  }
  return contents;
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
  EXPECT_EQ(Contents(*read), Contents(written));
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(CheckpointTest, ReadsOneFromBeforeItNamedItsScorer) {
  Checkpoint written = MakeCheckpoint(5);
  ASSERT_TRUE(store_.Write(written).ok());
  std::string state = *ReadFile(dir_ / "epoch_00005/state.json");
  std::string manifest = *ReadFile(dir_ / "epoch_00005/MANIFEST.json");
  const std::string hash = Sha256Hex(state);
  ASSERT_EQ(absl::StrReplaceAll({{R"("scorer_digest": "def")", R"("unknown": 1)"}}, &state), 1);
  ASSERT_EQ(absl::StrReplaceAll({{hash, Sha256Hex(state)}}, &manifest), 1);
  Damage("epoch_00005/state.json", state);
  Damage("epoch_00005/MANIFEST.json", manifest);
  const auto read = store_.ReadNewest(&warnings_);
  ASSERT_TRUE(read.ok() && read->has_value()) << read.status();
  written.scorer_digest = "";
  EXPECT_EQ(Contents(*read), Contents(written));
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

TEST_F(CheckpointTest, KnowsTheNewestByItsNumber) {
  for (int epochs : {99998, 99999, 100000}) ASSERT_TRUE(store_.Write(MakeCheckpoint(epochs)).ok());
  EXPECT_THAT(Names(), ElementsAre("epoch_100000", "epoch_99999"));
  EXPECT_EQ(Newest(), 100000);
  EXPECT_EQ(*store_.NewestEpochs(), 100000);
}

TEST_F(CheckpointTest, LeavesAloneWhatOnlyResemblesOne) {
  ASSERT_TRUE(store_.Write(MakeCheckpoint(1)).ok());
  std::filesystem::copy(dir_ / "epoch_00001", dir_ / "epoch_00001.copy");
  for (int epochs : {2, 3, 4}) ASSERT_TRUE(store_.Write(MakeCheckpoint(epochs)).ok());
  EXPECT_THAT(Names(), ElementsAre("epoch_00001.copy", "epoch_00003", "epoch_00004"));
}

TEST_F(CheckpointTest, NeverRemovesTheOneThatItWrote) {
  CheckpointStore store(dir_.path(), {.keep = 1});
  ASSERT_TRUE(store_.Write(MakeCheckpoint(10)).ok());
  ASSERT_TRUE(store_.Write(MakeCheckpoint(15)).ok());
  Damage("epoch_00015/state.json", "");
  ASSERT_TRUE(store.Write(MakeCheckpoint(12)).ok());
  EXPECT_THAT(Names(), ElementsAre("epoch_00012", "epoch_00015"));
  EXPECT_EQ(Newest(), 12);
  // Once the run is past it, it is one of the older ones.
  ASSERT_TRUE(store.Write(MakeCheckpoint(16)).ok());
  EXPECT_THAT(Names(), ElementsAre("epoch_00016"));
}

TEST_F(CheckpointTest, CountsOnlyThoseBeforeTheOneThatItWrote) {
  for (int epochs : {5, 10}) ASSERT_TRUE(store_.Write(MakeCheckpoint(epochs)).ok());
  for (const char* name : {"epoch_00015", "epoch_00020"}) {
    std::filesystem::create_directories(dir_ / name);
  }
  ASSERT_TRUE(store_.Write(MakeCheckpoint(12)).ok());
  EXPECT_THAT(Names(), ElementsAre("epoch_00010", "epoch_00012", "epoch_00015", "epoch_00020"));
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

TEST_F(CheckpointTest, ReadsTheOneThatWasMovedAwayIfNoOtherCameInItsPlace) {
  ASSERT_TRUE(store_.Write(MakeCheckpoint(2)).ok());
  std::filesystem::rename(dir_ / "epoch_00002", dir_ / ".old-epoch_00002");
  EXPECT_EQ(Newest(), 2);
  EXPECT_EQ(*store_.NewestEpochs(), 2);
  Damage(".old-epoch_00002/state.json", "");
  EXPECT_EQ(store_.ReadNewest(&warnings_).status().code(), absl::StatusCode::kDataLoss);
  // The one in its place comes first.
  ASSERT_TRUE(store_.Write(MakeOther(2)).ok());
  std::filesystem::copy(dir_ / "epoch_00002", dir_ / ".old-epoch_00002");
  Damage(".old-epoch_00002/state.json", "");
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

// Checkpoints on a disk that loses power.
class CheckpointPowerLossTest : public ::testing::Test {
 protected:
  // What is lost: all that was not synced, and then all kinds of parts of it.
  static constexpr int kLosses = 65;

  struct Newest {
    std::optional<Checkpoint> checkpoint;
    std::vector<std::string> warnings;
  };

  // An empty folder for checkpoints, which stays.
  static void MakeFolder(CrashingFileSystem& disk) {
    ASSERT_TRUE(disk.CreateDirectories(kFolder).ok());
    ASSERT_TRUE(disk.SyncDirectory("run").ok());
    ASSERT_TRUE(disk.SyncDirectory(".").ok());
  }

  static Newest ReadNewest(CrashingFileSystem& disk) {
    Newest newest;
    auto checkpoint = CheckpointStore(kFolder, {}, &disk).ReadNewest(&newest.warnings);
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    if (checkpoint.ok()) newest.checkpoint = *std::move(checkpoint);
    return newest;
  }

  // Writes `next` to the disk that `prepare` leaves, once with the power lost at each operation and
  // for each loss. Expects that the checkpoint before or `next` is there then, for sure `next` once
  // it was written, and that the run can go on.
  static void LosePowerAnywhere(
      int keep, const std::function<void(CheckpointStore&, CrashingFileSystem&)>& prepare,
      const Checkpoint& next) {
    bool complete = false;
    for (int crash = 0; !complete; ++crash) {
      for (int loss = 0; loss < kLosses; ++loss) {
        SCOPED_TRACE("crash at " + std::to_string(crash) + ", loss " + std::to_string(loss));
        CrashingFileSystem disk;
        MakeFolder(disk);
        CheckpointStore store(kFolder, {.keep = keep}, &disk);
        prepare(store, disk);
        const Newest before = ReadNewest(disk);
        const int first = disk.operations();
        disk.CrashAt(first + crash);
        const absl::Status written = store.Write(next);
        complete = disk.operations() <= first + crash;
        EXPECT_EQ(written.ok(), complete) << written;
        disk.Reboot(loss == 0 ? std::nullopt : std::optional<uint64_t>(loss));

        const Newest after = ReadNewest(disk);
        const auto contents = Contents(after.checkpoint);
        if (complete || contents != Contents(before.checkpoint)) {
          EXPECT_EQ(contents, Contents(next));
        }
        EXPECT_LE(after.warnings.size(), before.warnings.size());
        GoOn(disk, keep, next.epochs_done + 1);
        if (HasFailure()) return;
      }
    }
  }

 private:
  static constexpr char kFolder[] = "run/checkpoints";

  static void GoOn(CrashingFileSystem& disk, int keep, int64_t epochs) {
    ASSERT_TRUE(CheckpointStore(kFolder, {.keep = keep}, &disk).Write(MakeCheckpoint(epochs)).ok());
    EXPECT_THAT(*disk.List(kFolder), Each(StartsWith("epoch_")));
    EXPECT_LE(disk.List(kFolder)->size(), static_cast<size_t>(keep));
    disk.Reboot();
    EXPECT_EQ(Contents(ReadNewest(disk).checkpoint), Contents(MakeCheckpoint(epochs)));
  }
};

TEST_F(CheckpointPowerLossTest, LeavesNothingOrTheFirst) {
  LosePowerAnywhere(
      1, [](auto&, auto&) {}, MakeCheckpoint(1));
}

TEST_F(CheckpointPowerLossTest, LeavesTheOneBeforeOrTheNewOne) {
  for (int keep : {1, 2, 3}) {
    LosePowerAnywhere(
        keep,
        [](CheckpointStore& store, auto&) {
          for (int epochs : {1, 2, 3}) ASSERT_TRUE(store.Write(MakeCheckpoint(epochs)).ok());
        },
        MakeCheckpoint(4));
  }
}

TEST_F(CheckpointPowerLossTest, LeavesTheReplacedOneOrTheNewOne) {
  for (int keep : {1, 2}) {
    LosePowerAnywhere(
        keep,
        [](CheckpointStore& store, auto&) {
          for (int epochs : {1, 2}) ASSERT_TRUE(store.Write(MakeCheckpoint(epochs)).ok());
        },
        MakeOther(2));
  }
}

TEST_F(CheckpointPowerLossTest, LeavesTheOneBeforeADamagedOneThatIsReplaced) {
  LosePowerAnywhere(
      2,
      [](CheckpointStore& store, CrashingFileSystem& disk) {
        for (int epochs : {1, 2}) ASSERT_TRUE(store.Write(MakeCheckpoint(epochs)).ok());
        ASSERT_TRUE(disk.WriteSynced("run/checkpoints/epoch_00002/state.json", "").ok());
      },
      MakeOther(2));
}

TEST_F(CheckpointPowerLossTest, LeavesTheOneThatAnEarlierLossLeftMovedAway) {
  LosePowerAnywhere(
      1,
      [](CheckpointStore& store, CrashingFileSystem& disk) {
        ASSERT_TRUE(store.Write(MakeCheckpoint(2)).ok());
        const absl::Status moved =
            disk.Rename("run/checkpoints/epoch_00002", "run/checkpoints/.old-epoch_00002");
        ASSERT_TRUE(moved.ok() && disk.SyncDirectory("run/checkpoints").ok());
        EXPECT_EQ(Contents(ReadNewest(disk).checkpoint), Contents(MakeCheckpoint(2)));
      },
      MakeOther(2));
}

}  // namespace
}  // namespace ddpo
