#include "common/base/clock.h"

#include "common/base/fake_clock.h"
#include "gtest/gtest.h"

namespace ddpo {
namespace {

TEST(FakeClockTest, StandsStillUntilAdvanced) {
  FakeClock clock;
  const absl::Time start = clock.Now();
  EXPECT_EQ(clock.Now(), start);
  clock.Advance(absl::Seconds(3));
  EXPECT_EQ(clock.Now() - start, absl::Seconds(3));
}

TEST(FakeClockTest, SleepTakesNoRealTime) {
  FakeClock clock;
  const absl::Time start = clock.Now();
  clock.Sleep(absl::Hours(24));
  EXPECT_EQ(clock.Now() - start, absl::Hours(24));
}

TEST(FakeClockTest, WaitReturnsAtOnceAfterItsDeadline) {
  FakeClock clock;
  absl::Mutex mutex;
  absl::CondVar never_signalled;
  absl::MutexLock lock(&mutex);
  clock.WaitWithDeadline(&never_signalled, &mutex, clock.Now());
}

TEST(RealClockTest, GoesForward) {
  const absl::Time before = Clock::Real()->Now();
  absl::Mutex mutex;
  absl::CondVar never_signalled;
  {
    absl::MutexLock lock(&mutex);
    const absl::Time deadline = before + absl::Milliseconds(5);
    // It may return early.
    while (Clock::Real()->Now() < deadline) {
      Clock::Real()->WaitWithDeadline(&never_signalled, &mutex, deadline);
    }
  }
  EXPECT_GE(Clock::Real()->Now() - before, absl::Milliseconds(5));
}

}  // namespace
}  // namespace ddpo
