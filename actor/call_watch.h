#pragma once

#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "actor/call_registry.h"

namespace ddpo {

// Ends a call whose caller is held up in it: a synchronous call looks at nothing but the deadline
// that it began with. Thread-safe.
class CallWatch {
 public:
  // Cancels the call, which outlives the watch, when nothing came for `patience`, or `cancelled`,
  // asked many times a second unless it is empty, has said so for a second: what is about to end by
  // itself may. Time in which the process was stopped does not count.
  CallWatch(CallRegistry::Call* call, absl::Duration patience, std::function<bool()> cancelled);
  ~CallWatch();
  CallWatch(const CallWatch&) = delete;

  // Something came: patience begins anew.
  void Progress();

  // OK, or why the watch has cancelled the call: DEADLINE_EXCEEDED, CANCELLED.
  absl::Status verdict() const;

 private:
  void Run();
  absl::Status Look() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  CallRegistry::Call* const call_;
  const absl::Duration patience_;
  const std::function<bool()> cancelled_;
  mutable absl::Mutex mutex_;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Duration silent_ ABSL_GUARDED_BY(mutex_);
  absl::Duration unwanted_ ABSL_GUARDED_BY(mutex_);
  absl::Status verdict_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace ddpo
