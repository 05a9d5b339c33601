#pragma once

#include <cstdint>
#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"

namespace ddpo {

// Notices work that makes no progress: a call that hangs cannot say so, nor be ended from outside.
// Thread-safe; watches one piece of work at a time.
class StallWatch {
 public:
  // Work that made no progress for `limit` is stalled; that is noticed a tenth later at most. Time
  // in which the process itself was stopped does not count.
  StallWatch(absl::Duration limit, Clock* clock);
  ~StallWatch();
  StallWatch(const StallWatch&) = delete;

  // A piece of work, as long as it lives.
  class Work {
   public:
    // Once the work is stalled, calls back on another thread, one time; neither Progress nor the
    // work's end comes by before the callback has returned.
    Work(StallWatch* watch, std::function<void()> on_stall);
    ~Work();
    Work(const Work&) = delete;

   private:
    StallWatch* const watch_;
  };

  // The work goes on.
  void Progress();

 private:
  void Run();

  const absl::Duration limit_;
  Clock* const clock_;
  absl::Mutex mutex_;
  absl::CondVar ended_;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::function<void()> on_stall_ ABSL_GUARDED_BY(mutex_);  // empty without work to watch
  int64_t progress_ ABSL_GUARDED_BY(mutex_) = 0;
  std::thread thread_;
};

}  // namespace ddpo
