#pragma once

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace ddpo {

// The time, as a seam for tests. Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;

  // The system's clock; lives for ever.
  static Clock* Real();

  virtual absl::Time Now() = 0;

  // Returns when `signal` is signalled or the deadline has passed; may return earlier. `mutex` is
  // held on entry and exit.
  virtual void WaitWithDeadline(absl::CondVar* signal, absl::Mutex* mutex, absl::Time deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) = 0;

  // Blocks the thread for that long.
  virtual void Sleep(absl::Duration duration) = 0;
};

}  // namespace ddpo
