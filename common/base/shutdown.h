#pragma once

#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace ddpo {

// SIGTERM and SIGINT: the first asks the program to drain and end, the second to end at once.
// Construct one in main before any other thread starts: it blocks the signals in all of them and
// takes them on a thread of its own, so that nothing runs inside a signal handler.
class ShutdownSignal {
 public:
  ShutdownSignal();
  ~ShutdownSignal();
  ShutdownSignal(const ShutdownSignal&) = delete;

  // Number of signals so far: 1 asks to drain, more to abort.
  int count() const;
  bool requested() const { return count() > 0; }

  // Waits for the first signal, at most that long; true if it came.
  bool WaitFor(absl::Duration timeout);

  // Calls back on the signal thread for each signal, with its number from 1 on; at once for those
  // that came already. Waits until the callback of before, which it replaces, is not running any
  // more: not to be called from a callback.
  void OnSignal(std::function<void(int)> callback);

  // Behaves as if a signal had come; for ending by oneself.
  void Request();

 private:
  void Run();
  void Count();

  mutable absl::Mutex mutex_;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;
  int running_callbacks_ ABSL_GUARDED_BY(mutex_) = 0;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::function<void(int)> callback_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace ddpo
