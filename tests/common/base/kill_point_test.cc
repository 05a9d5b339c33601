#include "common/base/kill_point.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <thread>

namespace ddpo {
namespace {

// A child with this variable (none for null), which is read once in a process.
pid_t StartChild(const char* variable, const char* value, const std::function<void()>& run) {
  const pid_t child = fork();
  if (child != 0) return child;
  if (variable != nullptr) setenv(variable, value, 1);
  run();
  _exit(0);
}

int Await(pid_t child, int options = 0) {
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, options), child);
  return status;
}

void PassHereTwiceAndThereOnce() {
  KillPoint("here");
  KillPoint("there");
  KillPoint("here");
}

// How a child ends that passes them.
int EndOfChild(const char* variable, const char* value) {
  const int status = Await(StartChild(variable, value, PassHereTwiceAndThereOnce));
  return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

TEST(KillPointTest, EndsTheProcessAtTheNamedPassAlone) {
  EXPECT_EQ(EndOfChild(nullptr, nullptr), 0);
  EXPECT_EQ(EndOfChild("DDPO_KILL_AT", "here:1"), SIGKILL);
  EXPECT_EQ(EndOfChild("DDPO_KILL_AT", "here:2"), SIGKILL);
  EXPECT_EQ(EndOfChild("DDPO_KILL_AT", "here:3"), 0);
  EXPECT_EQ(EndOfChild("DDPO_KILL_AT", "nowhere:1"), 0);
  EXPECT_EQ(EndOfChild("DDPO_KILL_AT", "here"), 0);  // no number
}

TEST(KillPointTest, StopsTheProcessUntilItIsToldToGoOn) {
  const pid_t child = StartChild("DDPO_STOP_AT", "here:2", PassHereTwiceAndThereOnce);
  const int stopped = Await(child, WUNTRACED);
  EXPECT_TRUE(WIFSTOPPED(stopped) && WSTOPSIG(stopped) == SIGSTOP);
  kill(child, SIGCONT);
  const int ended = Await(child);
  EXPECT_TRUE(WIFEXITED(ended) && WEXITSTATUS(ended) == 0);
}

TEST(KillPointTest, HangsTheThreadThatComesByAndNoOther) {
  constexpr int kByTheOther = 7;
  const int status = Await(StartChild("DDPO_HANG_AT", "there:1", [] {
    // Whichever comes first hangs.
    const auto come = [] {
      KillPoint("there");
      _exit(kByTheOther);
    };
    std::thread(come).detach();
    come();
  }));
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), kByTheOther);
}

}  // namespace
}  // namespace ddpo
