#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/metrics/reward_server_metrics.h"
#include "reward_server/fair_queue.h"
#include "reward_server/scorer.h"

namespace ddpo {

// One caller's items on their way through a batcher. For each index exactly one of OnOutcome and
// OnDropped is called, from a thread of the batcher or the thread that called Submit, Sweep, Stop
// or Abort; never under a lock of the batcher.
class BatchCall {
 public:
  // caller: whose turn an item takes. bytes: memory that the call holds while it waits.
  BatchCall(std::string caller, absl::Time deadline, size_t items, int64_t bytes)
      : caller_(std::move(caller)), deadline_(deadline), items_(items), bytes_(bytes) {}
  virtual ~BatchCall() = default;

  // The scorer's input for an item: decodes the image. Called from several threads at once.
  virtual absl::StatusOr<ScoringInput> Prepare(size_t index) = 0;

  // The scorer's outcome, or Prepare's error.
  virtual void OnOutcome(size_t index, absl::StatusOr<ScoreValue> outcome) = 0;

  // The item was not computed: CANCELLED, DEADLINE_EXCEEDED, or UNAVAILABLE after Abort.
  virtual void OnDropped(size_t index, absl::Status reason) = 0;

  // Items that are not being computed yet will be dropped; Batcher::Sweep does it at once.
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  virtual bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

  const std::string& caller() const { return caller_; }
  absl::Time deadline() const { return deadline_; }
  size_t items() const { return items_; }
  int64_t bytes() const { return bytes_; }

 private:
  const std::string caller_;
  const absl::Time deadline_;
  const size_t items_;
  const int64_t bytes_;
  std::atomic<bool> cancelled_{false};
};

struct BatcherOptions {
  // Most inputs of one ScoreBatch; the scorer's own limit holds too.
  int max_batch_size = 64;
  // How long the first input of a batch waits for others.
  absl::Duration max_batch_delay = absl::Milliseconds(2);
  // Items that may wait, and the memory that their calls may hold.
  int64_t max_queue_items = 4096;
  int64_t max_queue_bytes = int64_t{1} << 30;
  // Memory of decoded images that wait for the scorer; decoding pauses above it.
  int64_t max_prepared_bytes = int64_t{256} << 20;
  // Threads that decode.
  int preparing_threads = 1;
  // Threads that call the scorer; 1 where the scorer is not thread-safe.
  int scoring_threads = 1;
  Clock* clock = Clock::Real();
  // Null for none.
  ScorerMetrics* metrics = nullptr;
};

// What a batcher has done and holds.
struct BatcherStats {
  int64_t waiting_items = 0;
  int64_t waiting_bytes = 0;
  int64_t scored_items = 0;
  int64_t failed_items = 0;
  int64_t dropped_items = 0;
  int64_t refused_items = 0;
  int64_t batches = 0;
  double scoring_seconds = 0;
};

// Takes many callers' items, decodes them, and hands them to one scorer in batches. Callers are
// served in turn, item by item; both queues are bounded; work whose deadline has passed or whose
// caller has gone is dropped before it is computed.
class Batcher {
 public:
  Batcher(std::unique_ptr<Scorer> scorer, const BatcherOptions& options);
  // Aborts, if Stop was not called.
  ~Batcher();

  // Takes over all items of the call or none.
  //   RESOURCE_EXHAUSTED  they do not fit into the queue now; RetryAfter() says when to try again
  //   INVALID_ARGUMENT    no items, or more than the empty queue holds
  //   UNAVAILABLE         after Stop or Abort
  absl::Status Submit(std::shared_ptr<BatchCall> call) ABSL_LOCKS_EXCLUDED(mu_);

  // Drops what waits although it was cancelled or its deadline has passed.
  void Sweep() ABSL_LOCKS_EXCLUDED(mu_);

  // Takes no more calls, finishes the accepted ones and joins the threads.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

  // Takes no more calls, drops all that waits with UNAVAILABLE, lets the running batches end and
  // joins the threads. May be called while another thread is in Stop.
  void Abort() ABSL_LOCKS_EXCLUDED(mu_);

  // About how long the queue takes to empty, between 10 ms and 30 s.
  absl::Duration RetryAfter() const ABSL_LOCKS_EXCLUDED(mu_);

  const ScorerInfo& info() const { return scorer_->info(); }
  BatcherStats stats() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  enum class State { kRunning, kStopping, kAborted };
  struct Item {
    std::shared_ptr<BatchCall> call;
    size_t index = 0;
    absl::Time arrived;
  };
  struct PreparedItem {
    Item item;
    ScoringInput input;
    absl::Time since;
  };
  struct Dropped {
    Item item;
    absl::Status reason;
  };

  void PrepareLoop() ABSL_LOCKS_EXCLUDED(mu_);
  void ScoreLoop() ABSL_LOCKS_EXCLUDED(mu_);
  // The next batch; empty when all is done. Blocks.
  std::vector<PreparedItem> TakeBatch() ABSL_LOCKS_EXCLUDED(mu_);
  void Score(std::vector<PreparedItem> batch) ABSL_LOCKS_EXCLUDED(mu_);
  bool HasRoomToPrepare() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Nothing more will become ready.
  bool InputsEnded() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsReadyToScore() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // OK, or why the item is not to be computed.
  absl::Status CheckWanted(const Item& item) const;
  std::vector<Dropped> ExtractUnwanted() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // An item leaves the waiting ones, to be computed or dropped.
  void StopWaiting(const Item& item) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CountItems(absl::string_view outcome, int64_t count);
  void ReportDropped(std::vector<Dropped> dropped) ABSL_LOCKS_EXCLUDED(mu_);
  void Join() ABSL_LOCKS_EXCLUDED(mu_);

  const std::unique_ptr<Scorer> scorer_;
  const BatcherOptions options_;
  const size_t batch_size_;
  const size_t prepared_limit_;

  mutable absl::Mutex mu_;
  absl::CondVar may_prepare_;
  absl::CondVar may_score_;
  State state_ ABSL_GUARDED_BY(mu_) = State::kRunning;
  FairQueue<Item> queue_ ABSL_GUARDED_BY(mu_);
  size_t preparing_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<PreparedItem> prepared_ ABSL_GUARDED_BY(mu_);
  int64_t prepared_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  BatcherStats stats_ ABSL_GUARDED_BY(mu_);
  // Moving average of a scoring thread's time for an item.
  double seconds_per_item_ ABSL_GUARDED_BY(mu_) = 0;

  absl::Mutex join_mu_;
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(join_mu_);
};

}  // namespace ddpo
