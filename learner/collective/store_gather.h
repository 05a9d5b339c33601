#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
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
// A thread counts this rank's heartbeat up in the store and watches the others', so that a rank
// that is slow is told from one that is gone.
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

  // The value of a key that some rank will set. DEADLINE_EXCEEDED at the deadline; UNAVAILABLE when
  // a rank is lost.
  absl::StatusOr<std::string> Await(const std::string& key, absl::Time deadline) {
    return WaitFor(
        key, [this] { return Lost(); }, deadline);
  }

  // UNAVAILABLE as long as another rank is gone or has been silent for too long, and once the store
  // is gone; a rank that left in good order is no loss. For calls that wait elsewhere than in the
  // store. Any thread.
  absl::Status Lost() const;

  // Calls `wake` once when Lost has something to say before the object goes: from another thread,
  // or at once where it has already.
  class Watch {
   public:
    Watch(StoreGather* gather, std::function<void()> wake);
    ~Watch();
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;

   private:
    StoreGather* const gather_;
  };

  // Turns the failure of call number `call` into an error that names the ranks that are gone: each
  // living rank reports its own failure in the store, or is heard of.
  absl::Status Diagnose(int64_t call, const std::string& what, const std::string& cause);

  // As in Collective.
  absl::Status Leave();
  void Abort(const std::string& why);

 private:
  // What the last look at another rank found. One that never came has no heartbeat.
  struct Peer {
    std::string heartbeat;
    // Since the heart last beat. Time in which this process itself was stopped does not count.
    int silent_looks = 0;
    std::string gone;  // why; empty as long as it is there
  };

  std::string Key(const std::string& kind, int rank) const;
  std::string Key(const std::string& kind, int64_t number, int rank) const;
  absl::StatusOr<std::vector<std::string>> Gather(const std::string& mine, absl::Duration timeout);
  absl::Status Gone(int rank, const std::string& why) const;
  // What is known of a rank: OK, or UNAVAILABLE with its name.
  absl::Status Verdict(int rank) const;
  // Waits for a rank's key. DEADLINE_EXCEEDED at the deadline; UNAVAILABLE names the rank if it is
  // gone or has been silent for too long, and rank 0 if the store is gone.
  absl::StatusOr<std::string> WaitForRank(const std::string& key, int rank, absl::Time deadline) {
    return WaitFor(
        key, [this, rank] { return Verdict(rank); }, deadline);
  }
  // Waits for a key for as long as `hope` is OK.
  absl::StatusOr<std::string> WaitFor(const std::string& key,
                                      const std::function<absl::Status()>& hope,
                                      absl::Time deadline);
  absl::Status LostLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WakeIfLost() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Beat();
  // Tells the others that this rank is alive and looks at them. An error is the store's.
  absl::Status BeatOnce(int64_t beat);
  absl::Status LookAt(int rank);
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
  mutable absl::Mutex mutex_;
  bool beating_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<int, Peer> peers_ ABSL_GUARDED_BY(mutex_);   // by rank
  absl::Status store_state_ ABSL_GUARDED_BY(mutex_);    // of the heart's calls
  std::function<void()> wake_ ABSL_GUARDED_BY(mutex_);  // of the Watch that there is
  std::thread heart_;
};

}  // namespace ddpo
