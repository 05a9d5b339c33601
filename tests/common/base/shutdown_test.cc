#include "common/base/shutdown.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ddpo {
namespace {

using ::testing::ElementsAre;

TEST(ShutdownSignalTest, FirstSignalDrainsAndSecondAborts) {
  ShutdownSignal shutdown;
  absl::Notification drain, abort;
  shutdown.OnSignal([&](int count) { (count == 1 ? drain : abort).Notify(); });
  EXPECT_FALSE(shutdown.requested());
  kill(getpid(), SIGTERM);
  drain.WaitForNotification();
  EXPECT_EQ(shutdown.count(), 1);
  EXPECT_FALSE(abort.HasBeenNotified());
  kill(getpid(), SIGINT);
  abort.WaitForNotification();
  EXPECT_EQ(shutdown.count(), 2);
}

TEST(ShutdownSignalTest, WaitEndsWithTheSignalOrWithItsTime) {
  ShutdownSignal shutdown;
  EXPECT_FALSE(shutdown.WaitFor(absl::ZeroDuration()));
  kill(getpid(), SIGTERM);
  EXPECT_TRUE(shutdown.WaitFor(absl::InfiniteDuration()));
  EXPECT_TRUE(shutdown.requested());
}

TEST(ShutdownSignalTest, TellsALateListenerWhatItMissed) {
  ShutdownSignal shutdown;
  shutdown.Request();
  shutdown.Request();
  std::vector<int> heard;
  shutdown.OnSignal([&](int count) { heard.push_back(count); });
  EXPECT_THAT(heard, ElementsAre(1, 2));
}

TEST(ShutdownSignalTest, AReplacedCallbackIsNotRunningAnyMore) {
  ShutdownSignal shutdown;
  absl::Notification running, replacing;
  std::atomic<bool> ran = false;
  shutdown.OnSignal([&](int) {
    running.Notify();
    replacing.WaitForNotification();
    // Gives a replacement that does not wait the time to return.
    absl::SleepFor(absl::Milliseconds(50));
    ran = true;
  });
  kill(getpid(), SIGTERM);
  running.WaitForNotification();
  replacing.Notify();
  shutdown.OnSignal([](int) {});
  EXPECT_TRUE(ran);
}

}  // namespace
}  // namespace ddpo
