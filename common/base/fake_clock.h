#pragma once

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"

namespace ddpo {

// A clock that stands still until Advance is called. Sleep advances it and returns at once.
class FakeClock : public Clock {
 public:
  explicit FakeClock(absl::Time start = absl::UnixEpoch() + absl::Hours(1)) : now_(start) {}

  absl::Time Now() override {
    absl::MutexLock lock(&mutex_);
    return now_;
  }

  // Looks at the fake time every few real milliseconds: the caller's own condition variable cannot
  // be signalled from here.
  void WaitWithDeadline(absl::CondVar* signal, absl::Mutex* mutex, absl::Time deadline) override {
    if (Now() < deadline) signal->WaitWithTimeout(mutex, absl::Milliseconds(2));
  }

  void Sleep(absl::Duration duration) override { Advance(duration); }

  void Advance(absl::Duration duration) {
    absl::MutexLock lock(&mutex_);
    now_ += duration;
  }

 private:
  absl::Mutex mutex_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ddpo
