#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace ddpo {

struct PublishedPolicy {
  int64_t version = 0;
  std::string bytes;   // as PolicyTrainer::SerializePolicy gives it
  std::string sha256;  // of the bytes, hexadecimal
};

// The policy versions that actors may still need: the newest `keep`. Thread-safe.
class PolicyStore {
 public:
  explicit PolicyStore(int64_t keep) : keep_(keep) {}

  // Adds a version, which is newer than all before, and tells the listeners.
  std::shared_ptr<const PublishedPolicy> Publish(int64_t version, std::string bytes);

  // NOT_FOUND for a version that is not kept any more or not yet published.
  absl::StatusOr<std::shared_ptr<const PublishedPolicy>> Find(int64_t version) const;
  // Null before the first.
  std::shared_ptr<const PublishedPolicy> Newest() const;

  // Calls back after each Publish, on the publisher's thread, until RemoveListener has returned.
  int64_t AddListener(std::function<void()> listener);
  void RemoveListener(int64_t id);

 private:
  const int64_t keep_;
  mutable absl::Mutex mutex_;
  std::map<int64_t, std::shared_ptr<const PublishedPolicy>> versions_ ABSL_GUARDED_BY(mutex_);
  // Held while listeners run, so that removing one waits for it.
  absl::Mutex listeners_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  std::map<int64_t, std::function<void()>> listeners_ ABSL_GUARDED_BY(listeners_mutex_);
  int64_t next_listener_ ABSL_GUARDED_BY(listeners_mutex_) = 0;
};

}  // namespace ddpo
