#pragma once

#include <cstddef>
#include <deque>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace ddpo {

// A first-in-first-out queue of at most `capacity` items between threads. Thread-safe.
//
// It ends in one of two ways: Close lets what is queued be taken and refuses new items; Abort drops
// what is queued. After either, waiting calls return.
template <typename T>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t capacity) : capacity_(capacity) {}

  // Blocks while the queue is full. CANCELLED after Close or Abort: the item was not taken.
  absl::Status Push(T item) { return PushBefore(std::move(item), absl::InfiniteFuture()); }

  // As Push; DEADLINE_EXCEEDED if there was no room in time.
  absl::Status PushBefore(T item, absl::Time deadline) {
    absl::MutexLock lock(&mutex_);
    const auto ready = [this] {
      mutex_.AssertReaderHeld();
      return ended_ || items_.size() < capacity_;
    };
    if (!mutex_.AwaitWithDeadline(absl::Condition(&ready), deadline)) {
      return absl::DeadlineExceededError("the queue stayed full");
    }
    if (ended_) return absl::CancelledError("the queue has ended");
    items_.push_back(std::move(item));
    return absl::OkStatus();
  }

  // RESOURCE_EXHAUSTED, at once, if the queue is full; CANCELLED after Close or Abort.
  absl::Status TryPush(T item) {
    absl::MutexLock lock(&mutex_);
    if (ended_) return absl::CancelledError("the queue has ended");
    if (items_.size() >= capacity_) return absl::ResourceExhaustedError("the queue is full");
    items_.push_back(std::move(item));
    return absl::OkStatus();
  }

  // Blocks while the queue is empty. CANCELLED after Abort, and after Close once it is drained.
  absl::StatusOr<T> Pop() { return PopBefore(absl::InfiniteFuture()); }

  // As Pop; DEADLINE_EXCEEDED if nothing came in time.
  absl::StatusOr<T> PopBefore(absl::Time deadline) {
    absl::MutexLock lock(&mutex_);
    const auto ready = [this] {
      mutex_.AssertReaderHeld();
      return ended_ || !items_.empty();
    };
    if (!mutex_.AwaitWithDeadline(absl::Condition(&ready), deadline)) {
      return absl::DeadlineExceededError("the queue stayed empty");
    }
    if (items_.empty()) return absl::CancelledError("the queue has ended");
    T item = std::move(items_.front());
    items_.pop_front();
    return item;
  }

  // No new items; those that are queued can still be taken.
  void Close() {
    absl::MutexLock lock(&mutex_);
    ended_ = true;
  }

  // No new items, and those that are queued are dropped.
  void Abort() {
    std::deque<T> dropped;
    absl::MutexLock lock(&mutex_);
    ended_ = true;
    dropped.swap(items_);
  }

  size_t size() const {
    absl::MutexLock lock(&mutex_);
    return items_.size();
  }

 private:
  const size_t capacity_;
  mutable absl::Mutex mutex_;
  std::deque<T> items_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace ddpo
