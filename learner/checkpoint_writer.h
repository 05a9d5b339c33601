#pragma once

#include <functional>
#include <optional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "learner/checkpoint.h"

namespace ddpo {

// Writes checkpoints in a thread of its own, one at a time and in the order in which they were
// handed over, so that a run goes on while its disk is slow. One thread calls it.
class CheckpointWriter {
 public:
  // `written` is called in the writer's thread for each checkpoint that is durable. The store
  // outlives the writer.
  CheckpointWriter(CheckpointStore* store, std::function<void(const Checkpoint&)> written);
  // Finishes the one that is under way.
  ~CheckpointWriter();

  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // Takes one over; waits for the one before it, so that memory holds at most one besides the
  // caller's. The error of an earlier one, if any has failed: then this one is not written.
  absl::Status Write(Checkpoint checkpoint) ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits until all are durable, or says why one is not.
  absl::Status Wait() ABSL_LOCKS_EXCLUDED(mutex_);
  // The first error so far, without waiting.
  absl::Status status() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  bool Idle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !pending_.has_value(); }
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !Idle() || ending_; }

  CheckpointStore* const store_;
  const std::function<void(const Checkpoint&)> written_;
  mutable absl::Mutex mutex_;
  std::optional<Checkpoint> pending_ ABSL_GUARDED_BY(mutex_);  // until it is durable
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace ddpo
