#include "common/base/kill_point.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

namespace ddpo {
namespace {

// How a child ends that passes "here" twice and "there" once. What the variable says is read once.
int EndOfChild(const char* kill_at) {
  const pid_t child = fork();
  if (child == 0) {
    if (kill_at != nullptr) setenv("DDPO_KILL_AT", kill_at, 1);
    KillPoint("here");
    KillPoint("there");
    KillPoint("here");
    _exit(0);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

TEST(KillPointTest, EndsTheProcessAtTheNamedPassAlone) {
  EXPECT_EQ(EndOfChild(nullptr), 0);
  EXPECT_EQ(EndOfChild("here:1"), SIGKILL);
  EXPECT_EQ(EndOfChild("here:2"), SIGKILL);
  EXPECT_EQ(EndOfChild("here:3"), 0);
  EXPECT_EQ(EndOfChild("nowhere:1"), 0);
  EXPECT_EQ(EndOfChild("here"), 0);  // no number
}

}  // namespace
}  // namespace ddpo
