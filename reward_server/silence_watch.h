#pragma once

#include <functional>
#include <map>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace ddpo {

// Ends waits for callers that send nothing for too long, so that one that names no deadline does
// not hold a thread for ever. Thread-safe.
class SilenceWatch {
 public:
  explicit SilenceWatch(absl::Duration limit);
  // Joins its thread. Nobody waits any more.
  ~SilenceWatch();

  // One wait under watch, for as long as it lives.
  class Wait {
   public:
    // `end` is called from another thread, at most once, while the wait lives.
    Wait(SilenceWatch* watch, std::function<void()> end);
    ~Wait();
    Wait(const Wait&) = delete;
    Wait& operator=(const Wait&) = delete;

   private:
    SilenceWatch* const watch_;
  };

 private:
  struct Watched {
    std::function<void()> end;
    absl::Time deadline;
    bool ended = false;
  };

  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  // When the next wait has lasted too long, as far as is known now.
  absl::Time NextDeadline() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const absl::Duration limit_;
  mutable absl::Mutex mutex_;
  std::map<const Wait*, Watched> waits_ ABSL_GUARDED_BY(mutex_);
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace ddpo
