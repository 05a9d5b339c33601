#include "common/base/files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <optional>

#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/crashing_file_system.h"
#include "tests/testing/paths.h"

namespace ddpo {
namespace {

using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class FilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/files-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { EXPECT_TRUE(FileSystem::Real()->RemoveAll(folder_).ok()); }

  std::string Path(const std::string& name) const { return folder_ + "/" + name; }

  std::string folder_;
};

TEST_F(FilesTest, ReadsBackEveryByte) {
  const std::string bytes("\0line\r\n\xff", 8);
  ASSERT_TRUE(WriteFileAtomically(Path("a"), bytes).ok());
  EXPECT_EQ(*ReadFile(Path("a")), bytes);
  // Several of the reader's buffers.
  const std::string large(300000, 'x');
  ASSERT_TRUE(WriteFileAtomically(Path("a"), large).ok());
  EXPECT_EQ(*ReadFile(Path("a")), large);
}

TEST_F(FilesTest, LeavesNoTemporaryFile) {
  ASSERT_TRUE(WriteFileAtomically(Path("a"), "new").ok());
  // The rename fails: a folder is in the way.
  ASSERT_TRUE(FileSystem::Real()->CreateDirectories(Path("b/c")).ok());
  EXPECT_FALSE(WriteFileAtomically(Path("b"), "new").ok());
  EXPECT_THAT(*FileSystem::Real()->List(folder_), ElementsAre("a", "b"));
}

TEST_F(FilesTest, NamesThePathAndTheCauseInErrors) {
  const absl::Status missing = ReadFile(Path("missing")).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr(Path("missing")));
  EXPECT_THAT(std::string(ReadFile(folder_).status().message()), HasSubstr(folder_));
  const absl::Status unwritable = WriteFileAtomically(Path("no/such/folder/a"), "x");
  EXPECT_THAT(std::string(unwritable.message()), HasSubstr(Path("no/such/folder/a")));
  EXPECT_FALSE(FileSystem::Real()->List(Path("missing")).ok());
  EXPECT_FALSE(FileSystem::Real()->SyncDirectory(Path("missing")).ok());
}

TEST_F(FilesTest, MakesAndRemovesFoldersRepeatedly) {
  FileSystem& files = *FileSystem::Real();
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(files.CreateDirectories(Path("x/y/z")).ok());
  ASSERT_TRUE(WriteFileAtomically(Path("x/y/file"), "").ok());
  EXPECT_THAT(*files.List(Path("x/y")), ElementsAre("file", "z"));
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(files.RemoveAll(Path("x")).ok());
  EXPECT_FALSE(files.Exists(Path("x")));
}

TEST_F(FilesTest, RefusesToMakeAFolderBelowAFile) {
  ASSERT_TRUE(WriteFileAtomically(Path("a"), "").ok());
  EXPECT_FALSE(FileSystem::Real()->CreateDirectories(Path("a/b")).ok());
}

// What one file system makes of operations that succeed and fail in all ways that there are.
std::vector<std::string> Outcomes(FileSystem& files, const std::string& root) {
  std::vector<std::string> outcomes;
  const auto note = [&](const absl::Status& status) {
    outcomes.push_back(absl::StatusCodeToString(status.code()));
  };
  const auto at = [&](const std::string& path) { return JoinPath(root, path); };
  note(files.WriteSynced(at("none/file"), "x"));
  note(files.CreateDirectories(at("a/b")));
  note(files.CreateDirectories(at("a/b")));
  note(files.WriteSynced(at("a/b/file"), "bytes"));
  note(files.AppendSynced(at("a/b/file"), " and more"));
  note(files.AppendSynced(at("a/new"), "first"));
  note(files.WriteSynced(at("a/b"), "x"));
  note(files.WriteSynced(at("a/new/file"), "x"));
  note(files.CreateDirectories(at("a/new/folder")));
  note(files.CreateDirectories(at("full/c")));
  note(files.CreateDirectories(at("empty")));
  note(files.Rename(at("a"), at("full")));       // holds something
  note(files.Rename(at("a/new"), at("empty")));  // a folder
  note(files.Rename(at("full"), at("a/new")));   // a file
  note(files.Rename(at("none"), at("else")));
  note(files.Rename(at("a"), at("none/a")));
  note(files.Rename(at("a"), at("empty")));
  note(files.Rename(at("empty/b"), at("full/c")));
  note(files.SyncDirectory(at("empty")));
  note(files.SyncDirectory(at("a")));
  note(files.SyncDirectory(at("empty/new")));
  note(files.RemoveAll(at("none")));
  for (const char* path : {"full/c/file", "empty/new", "a/new", "full"}) {
    const auto contents = files.Read(at(path));
    note(contents.status());
    outcomes.push_back(contents.value_or(""));
  }
  for (const char* path : {"", "empty", "full/c", "a", "empty/new"}) {
    outcomes.push_back(files.Exists(at(path)) ? "exists" : "is not there");
    const auto names = files.List(at(path));
    note(names.status());
    if (names.ok()) outcomes.insert(outcomes.end(), names->begin(), names->end());
  }
  note(files.RemoveAll(at("full")));
  note(files.RemoveAll(at("empty/new")));
  note(files.List(at("full/c")).status());
  outcomes.push_back(absl::StrJoin(*files.List(root), " "));
  return outcomes;
}

TEST_F(FilesTest, AreInMemoryWhatTheyAreOnDiskWhileThereIsPower) {
  testing::CrashingFileSystem memory;
  ASSERT_TRUE(memory.CreateDirectories("root").ok());
  EXPECT_EQ(Outcomes(memory, "root"), Outcomes(*FileSystem::Real(), folder_));
}

TEST(CrashingFileSystemTest, LosesNamesWhoseFolderWasNotSynced) {
  testing::CrashingFileSystem files;
  ASSERT_TRUE(files.CreateDirectories("run/new").ok());
  ASSERT_TRUE(files.SyncDirectory(".").ok());
  ASSERT_TRUE(files.SyncDirectory("run").ok());
  ASSERT_TRUE(files.WriteSynced("run/new/synced", "a").ok());
  ASSERT_TRUE(files.SyncDirectory("run/new").ok());
  ASSERT_TRUE(files.WriteSynced("run/new/file", "b").ok());
  ASSERT_TRUE(files.Rename("run/new", "run/renamed").ok());
  ASSERT_TRUE(files.SyncDirectory("run").ok());
  ASSERT_TRUE(files.RemoveAll("run/renamed").ok());
  ASSERT_TRUE(files.CreateDirectories("run/lost").ok());
  files.Reboot();
  EXPECT_THAT(*files.List("run"), ElementsAre("renamed"));
  EXPECT_THAT(*files.List("run/renamed"), ElementsAre("synced"));
  EXPECT_EQ(*files.Read("run/renamed/synced"), "a");
}

TEST(WriteFileAtomicallyTest, LeavesOldOrNewContentsWhereverThePowerFails) {
  const auto write_old = [](testing::CrashingFileSystem& files) {
    ASSERT_TRUE(files.CreateDirectories("run").ok());
    ASSERT_TRUE(files.SyncDirectory(".").ok());
    ASSERT_TRUE(WriteFileAtomically("run/state", "old contents", &files).ok());
    files.Reboot();
  };
  testing::CrashingFileSystem complete;
  write_old(complete);
  ASSERT_TRUE(WriteFileAtomically("run/state", "new contents", &complete).ok());
  const int operations = complete.operations();
  ASSERT_GE(operations, 3);  // write, rename, sync the folder
  for (int crash = 0; crash <= operations; ++crash) {
    for (uint64_t loss = 0; loss < 9; ++loss) {
      testing::CrashingFileSystem files;
      write_old(files);
      files.CrashAt(crash);
      const absl::Status status = WriteFileAtomically("run/state", "new contents", &files);
      files.Reboot(loss == 0 ? std::nullopt : std::optional(loss));
      const std::string after = *files.Read("run/state");
      if (status.ok()) {
        EXPECT_EQ(after, "new contents") << "crash at " << crash;
      } else {
        EXPECT_THAT(after, AnyOf("old contents", "new contents")) << "crash at " << crash;
      }
      EXPECT_EQ(status.ok(), crash == operations);
    }
  }
}

TEST(PathTest, JoinsAndSplits) {
  EXPECT_EQ(JoinPath("a", "b"), "a/b");
  EXPECT_EQ(JoinPath("a/", "b"), "a/b");
  EXPECT_EQ(JoinPath("a", "/b"), "/b");
  EXPECT_EQ(DirName("a/b/c"), "a/b");
  EXPECT_EQ(DirName("/c"), "/");
  EXPECT_EQ(DirName("c"), ".");
}

TEST_F(FilesTest, FindsAssetsInTheirFolderBeforeTheSourceTree) {
  const std::string preset = "assets/configs/demo_compressibility.yaml";
  ASSERT_EQ(chdir(folder_.c_str()), 0);
  EXPECT_EQ(*FindResource(preset), testing::SourcePath(preset));
  ASSERT_TRUE(FileSystem::Real()->CreateDirectories(Path("share/assets/configs")).ok());
  ASSERT_TRUE(WriteFileAtomically(Path("share/") + preset, "").ok());
  setenv("DDPO_ASSETS_DIR", Path("share").c_str(), 1);
  EXPECT_EQ(*FindResource(preset), Path("share/") + preset);
  const absl::Status missing = FindResource("assets/no_such_asset").status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr(Path("share/assets/no_such_asset")));
  unsetenv("DDPO_ASSETS_DIR");
  ASSERT_EQ(chdir("/"), 0);
}

}  // namespace
}  // namespace ddpo
