#include "common/base/folder_lock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/subprocess.h"
#include "tests/testing/temp_dir.h"

namespace ddpo {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(FolderLockTest, ASecondHolderIsRefusedWithTheFoldersNameAndTheFirstOnes) {
  const testing::TempDir dir;
  const std::string run = dir / "run";
  auto first = FolderLock::Take(run, "lock", absl::ZeroDuration());
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = FolderLock::Take(run, "lock", absl::ZeroDuration());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(second.status().message()),
              AllOf(HasSubstr(run), HasSubstr(absl::StrCat("process ", getpid()))));
  EXPECT_TRUE(FolderLock::Take(run, "another lock", absl::ZeroDuration()).ok());
  first->reset();
  EXPECT_TRUE(FolderLock::Take(run, "lock", absl::ZeroDuration()).ok());
}

TEST(FolderLockTest, WaitsForAHolderThatIsAboutToEnd) {
  const testing::TempDir dir;
  auto first = FolderLock::Take(dir.path(), "lock", absl::ZeroDuration());
  ASSERT_TRUE(first.ok()) << first.status();
  std::thread other([&] {
    const auto second = FolderLock::Take(dir.path(), "lock", absl::Minutes(2));
    EXPECT_TRUE(second.ok()) << second.status();
  });
  first->reset();
  other.join();
}

TEST(FolderLockTest, AKilledHolderHoldsItNoMore) {
  const testing::TempDir dir;
  ASSERT_TRUE(WriteFileAtomically(dir / "lock", "process 1 on a machine that is gone\n").ok());
  auto holder = Subprocess::Start({.argv = {"/usr/bin/flock", "--no-fork", dir / "lock", "/bin/sh",
                                            "-c", "touch " + dir / "held; exec sleep 1000"}});
  ASSERT_TRUE(holder.ok()) << holder.status();
  while (!FileSystem::Real()->Exists(dir / "held") && !(*holder)->Poll().has_value()) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_EQ(FolderLock::Take(dir.path(), "lock", absl::ZeroDuration()).status().code(),
            absl::StatusCode::kAborted);
  holder->reset();
  EXPECT_TRUE(FolderLock::Take(dir.path(), "lock", absl::Minutes(2)).ok());
}

// What a process starts must not keep its folder after its own end.
TEST(FolderLockTest, ChildrenDoNotInheritIt) {
  const testing::TempDir dir;
  auto first = FolderLock::Take(dir.path(), "lock", absl::ZeroDuration());
  ASSERT_TRUE(first.ok()) << first.status();
  const auto child = Subprocess::Start({.argv = {"/bin/sleep", "1000"}});
  ASSERT_TRUE(child.ok()) << child.status();
  first->reset();
  EXPECT_TRUE(FolderLock::Take(dir.path(), "lock", absl::ZeroDuration()).ok());
}

}  // namespace
}  // namespace ddpo
