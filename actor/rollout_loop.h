#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "actor/learner_client.h"
#include "actor/policy_replica.h"
#include "actor/reward_client.h"
#include "actor/rollout.h"
#include "actor/sampler.h"
#include "actor/stall_watch.h"
#include "common/base/bounded_queue.h"
#include "common/base/clock.h"
#include "common/metrics/actor_metrics.h"
#include "common/rpc/retry.h"

namespace ddpo {

// RewardClient::Score, as a seam for tests.
using RewardFunction = std::function<absl::StatusOr<std::vector<RewardResult>>(
    absl::Span<const Image> images, absl::Span<const std::string> prompts,
    const std::function<bool()>& cancelled)>;

struct RolloutLoopOptions {
  std::string actor_id;
  std::string model_digest;
  // The configuration of the run, serialised, that this actor was made for.
  std::string config;
  // Longest time that the learner holds an answer back while it has no task.
  absl::Duration lease_wait = absl::Seconds(10);
  // The actor fails once the learner has been unreachable for this time.
  absl::Duration give_up_after = absl::Minutes(10);
  // Deadline of one try to deliver a batch.
  absl::Duration delivery_timeout = absl::Minutes(2);
  // Pause after a failed call or task; doubles up to the maximum.
  absl::Duration first_pause = absl::Milliseconds(50);
  absl::Duration max_pause = absl::Seconds(2);
  // A sampler that makes no progress for this time, neither a denoising step nor the end of a call,
  // hangs.
  absl::Duration stall_limit = absl::Minutes(10);
  // Measures stall_limit.
  Clock* clock = Clock::Real();
};

// What the loop works with. All outlive it.
struct RolloutParts {
  LearnerClient* learner = nullptr;
  PolicyReplica* policies = nullptr;
  Sampler* sampler = nullptr;
  RewardFunction score;
  ActorMetrics* metrics = nullptr;
  // Called on another thread when the sampler hangs with this task, whose lease is then renewed no
  // more. A thread that hangs cannot be ended: Run returns only if it wakes.
  std::function<void(const std::string& task_id)> on_stall;
};

// Leases tasks, samples, scores and delivers them, as three stages with short queues between: the
// next batch is denoised while the last one's rewards and acks are under way. Leases are renewed by
// a fourth thread, and a fifth watches the sampler: the other stages' calls have deadlines. At most
// two batches wait before each of the last two stages, so that no more than seven are in memory.
//
// A batch whose lease or generation is lost is dropped: the task is another's. One that fails (no
// policy, no rewards, samples that the learner refuses) is given back with the reason.
class RolloutLoop {
 public:
  RolloutLoop(const RolloutLoopOptions& options, const RolloutParts& parts);

  // The actor has to be registered. OK once the learner has said that the run is over, or after
  // Stop, when what was begun is delivered. UNAVAILABLE when the learner was gone for too long;
  // FAILED_PRECONDITION when it has another model or configuration now. Call once.
  absl::Status Run();

  // Leases nothing any more and finishes what is in hand; if the learner is gone, drops it. Any
  // thread.
  void Stop();
  // Drops everything and returns from Run soon. Any thread.
  void Abort();

 private:
  using RolloutPtr = std::shared_ptr<Rollout>;

  // Stages; each returns when there is nothing more to come.
  void SampleStage();
  void RewardStage();
  void DeliveryStage();
  void RenewalThread();

  // The next task; nothing when there are to be no more.
  std::optional<RolloutPtr> NextRollout();
  absl::StatusOr<cluster::v1::LeaseTaskResponse> LeaseTask();
  absl::Status EnsureRegistered();
  absl::Status SampleRollout(Rollout* rollout);
  absl::Status UsePolicy(const Rollout& rollout);
  // From now on the sampler works on the rollout.
  StallWatch::Work WatchSampler(const Rollout& rollout);
  // Passes a sampled rollout on, once there is room.
  absl::Status PushSampled(const RolloutPtr& rollout);
  absl::Status ScoreRollout(Rollout* rollout);
  absl::Status DeliverRollout(Rollout* rollout);

  // The rollout leaves the actor undone: it is dropped or given back. Pauses after giving back, so
  // that an actor that cannot work does not use up a task's attempts at once.
  void GiveUp(const Rollout& rollout, const absl::Status& why);
  // The learner does not know us any more: all work in hand is void, unless it is of a later
  // registration than that generation's.
  void LoseGeneration(uint64_t generation);
  // Passes on what the learner said to a call of that generation, and notices when it does not know
  // us.
  absl::Status FromLearner(const absl::Status& status, uint64_t generation);
  // Run will return this; everything stops.
  void Fail(const absl::Status& status);
  void EndAll() ABSL_LOCKS_EXCLUDED(mutex_);

  bool stopping() const;
  bool ending() const;
  std::function<bool()> UselessOrEnding(const Rollout& rollout) const;
  RetryOptions Retry(std::function<bool()> cancelled) const;
  void UpdateQueueDepth();

  const RolloutLoopOptions options_;
  const RolloutParts parts_;
  RolloutTable table_;
  StallWatch watch_;
  static constexpr size_t kQueued = 2;
  BoundedQueue<RolloutPtr> sampled_{kQueued};
  BoundedQueue<RolloutPtr> scored_{kQueued};
  std::string policy_sha256_;      // that the sampler has; sample stage only
  int64_t acked_version_ = -1;     // sample stage only
  uint64_t acked_generation_ = 0;  // sample stage only

  mutable absl::Mutex mutex_;
  bool registered_ ABSL_GUARDED_BY(mutex_) = true;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;  // no new tasks
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;    // drop everything
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ddpo
