#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "learner/collective/key_value_store.h"

namespace ddpo {

// Gathers a small value of every rank through the store, and finds out which rank is missing when
// a collective call failed. Both backends use it, so that errors name ranks alike.
//
// A thread counts this rank's heartbeat up in the store, so that the others can tell a rank that is
// slow from one that is gone.
class StoreGather {
 public:
  StoreGather(std::shared_ptr<KeyValueStore> store, std::string prefix, int rank, int size,
              absl::Duration timeout);
  // Tells the others that this rank ended, unless Leave or Abort has done so.
  ~StoreGather();

  // Takes this rank's seat in the group and waits for the others. UNAVAILABLE if the group
  // has had this rank: it is an old one, which ends soon.
  absl::Status Meet(absl::Duration timeout);

  // Values in rank order. UNAVAILABLE names the ranks whose value did not come in time, or one that
  // is gone.
  absl::StatusOr<std::vector<std::string>> AllGather(const std::string& mine) {
    return Gather(mine, timeout_);
  }

  // Turns the failure of call number `call` into an error that names the ranks that are gone: each
  // living rank reports its own failure in the store, or is heard of.
  absl::Status Diagnose(int64_t call, const std::string& what, const std::string& cause);

  // As in Collective.
  absl::Status Leave();
  void Abort(const std::string& why);

 private:
  std::string Key(const std::string& kind, int rank) const;
  std::string Key(const std::string& kind, int64_t number, int rank) const;
  absl::StatusOr<std::vector<std::string>> Gather(const std::string& mine, absl::Duration timeout);
  absl::Status Gone(int rank, const std::string& why) const;
  // Waits for a rank's key. DEADLINE_EXCEEDED at the deadline; UNAVAILABLE names the rank if it is
  // gone or has been silent for too long, and rank 0 if the store is gone.
  absl::StatusOr<std::string> WaitFor(const std::string& key, int rank, absl::Time deadline);
  void Beat();
  void StopBeating();

  const std::shared_ptr<KeyValueStore> store_;
  const std::string prefix_;
  const int rank_;
  const int size_;
  const absl::Duration timeout_;
  // After which a rank without a heartbeat is given up.
  const absl::Duration silence_;
  int64_t gathers_ = 0;
  std::atomic<bool> told_{false};  // the others know that, or why, this rank is gone
  std::atomic<bool> aborted_{false};
  absl::Mutex mutex_;
  bool beating_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread heart_;
};

}  // namespace ddpo
