#pragma once

#include <functional>
#include <map>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace ddpo {

// Ends streams from which nothing has come for too long, so that a caller that sends no more and
// names no deadline does not hold a thread for ever. Thread-safe.
class SilenceWatch {
 public:
  explicit SilenceWatch(absl::Duration limit);
  // Joins its thread. No stream is left.
  ~SilenceWatch();

  // One stream under watch, for as long as it lives.
  class Stream {
   public:
    // `end` is called from another thread, once, while the stream lives.
    Stream(SilenceWatch* watch, std::function<void()> end);
    ~Stream();
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    // Something has come.
    void Heard();
    // Whether it was ended.
    bool ended() const;

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
  // When the next stream has been silent for too long, as far as is known now.
  absl::Time NextDeadline() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const absl::Duration limit_;
  mutable absl::Mutex mutex_;
  std::map<const Stream*, Watched> streams_ ABSL_GUARDED_BY(mutex_);
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace ddpo
