#include "common/base/subprocess.h"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ddpo {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<Subprocess> StartShell(const std::string& script,
                                       Subprocess::Options options = {}) {
  options.argv = {"/bin/sh", "-c", script};
  auto process = Subprocess::Start(options);
  EXPECT_TRUE(process.ok()) << process.status();
  return process.ok() ? *std::move(process) : nullptr;
}

TEST(SubprocessTest, TellsHowItsChildEnded) {
  const ExitStatus fine = *StartShell("exit 0")->Wait();
  EXPECT_TRUE(fine.ok());
  const ExitStatus failed = *StartShell("exit 3")->Wait();
  EXPECT_FALSE(failed.ok());
  EXPECT_EQ(failed.ToString(), "exit code 3");
  const ExitStatus killed = *StartShell("kill -9 $$")->Wait();
  EXPECT_FALSE(killed.ok());
  EXPECT_THAT(killed.ToString(), HasSubstr("killed by signal 9"));
}

TEST(SubprocessTest, KeepsTheAnswerAfterTheChildIsGone) {
  auto process = StartShell("exit 4");
  EXPECT_EQ(process->Wait()->code, 4);
  EXPECT_EQ(process->Poll()->code, 4);
  process->Kill(SIGKILL);  // reaches nobody: the number may be another's by now
  EXPECT_EQ(process->Wait()->code, 4);
}

TEST(SubprocessTest, DeliversSignals) {
  auto process = StartShell("exec tail -f /dev/null");
  EXPECT_FALSE(process->Poll().has_value());
  EXPECT_FALSE(process->Wait(absl::ZeroDuration()).has_value());
  process->Kill(SIGTERM);
  EXPECT_EQ(process->Wait()->signal, SIGTERM);
}

TEST(SubprocessTest, DoesNotHandItsBlockedSignalsDown) {
  sigset_t term, before;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &term, &before);
  EXPECT_EQ(StartShell("kill -TERM $$; exit 7")->Wait()->signal, SIGTERM);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TEST(SubprocessTest, AppendsOutputToTheLogAndSetsTheEnvironment) {
  const std::string log = ::testing::TempDir() + "/subprocess_test.log";
  ASSERT_TRUE(WriteFileAtomically(log, "before\n").ok());
  setenv("DDPO_TEST_INHERITED", "parent", 1);
  setenv("DDPO_TEST_OVERRIDDEN", "parent", 1);
  const ExitStatus status =
      *StartShell("echo $DDPO_TEST_INHERITED; printenv DDPO_TEST_OVERRIDDEN >&2",
                  {.argv = {}, .log_file = log, .environment = {"DDPO_TEST_OVERRIDDEN=child"}})
           ->Wait();
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(*ReadFile(log), "before\nparent\nchild\n");
  ASSERT_TRUE(FileSystem::Real()->RemoveAll(log).ok());
}

TEST(SubprocessTest, NamesAProgramThatCannotBeRun) {
  const absl::Status missing = Subprocess::Start({.argv = {"/no/such/program"}}).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("/no/such/program"));
  EXPECT_EQ(Subprocess::Start({.argv = {"/etc/passwd"}}).status().code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Subprocess::Start({}).status().code(), absl::StatusCode::kInvalidArgument);
  const absl::Status log =
      Subprocess::Start({.argv = {"/bin/true"}, .log_file = "/no/such/folder/log"}).status();
  EXPECT_THAT(std::string(log.message()), HasSubstr("/no/such/folder/log"));
}

// Each holder of the pipe's writing end lives as long as no end of file comes.
bool ClosesWithin(int fd, int milliseconds) {
  pollfd waiting{fd, POLLIN, 0};
  char byte;
  return poll(&waiting, 1, milliseconds) == 1 && read(fd, &byte, 1) == 0;
}

TEST(SubprocessTest, KillsItsChildWhenItGoesOutOfScope) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  auto process = StartShell("exec tail -f /dev/null");
  close(ends[1]);
  process.reset();
  EXPECT_TRUE(ClosesWithin(ends[0], 30000));
  close(ends[0]);
}

TEST(SubprocessTest, ChildDiesWithAParentThatWasKilled) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    close(ends[0]);
    const auto child = Subprocess::Start(
        {.argv = {"/bin/sh", "-c", absl::StrCat("echo >&", ends[1], "; exec tail -f /dev/null")}});
    if (!child.ok()) _exit(1);
    while (true) pause();
  }
  close(ends[1]);
  char started;
  ASSERT_EQ(read(ends[0], &started, 1), 1);
  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  EXPECT_TRUE(ClosesWithin(ends[0], 30000));
  close(ends[0]);
}

}  // namespace
}  // namespace ddpo
