#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "ddpo/cluster/v1/cluster.pb.h"

namespace ddpo {

struct CoordinatorOptions {
  std::string run_id;
  uint64_t generation = 1;
  // ddpo.config.v1.Config, serialised, for actors.
  std::string config;
  std::string model_digest;
  absl::Duration lease_duration = absl::Seconds(30);
  // Times that a task may come back undone, given back or lost with its actor, until the run fails:
  // a task that kills whoever takes it must not go round for ever.
  int max_task_attempts = 20;
  // An actor that holds nothing and has been silent for so long is forgotten; it may register
  // again.
  absl::Duration forget_after = absl::Minutes(10);
  Clock* clock = Clock::Real();
};

// Hands out rollout tasks. A task is waiting, leased or complete; a lease that is not renewed ends
// and the task waits again, at the front. Thread-safe; no call blocks.
class Coordinator {
 public:
  // Gets the answer to LeaseTask, on some thread, exactly once.
  using LeaseCallback = std::function<void(absl::Status, cluster::v1::LeaseTaskResponse)>;

  explicit Coordinator(CoordinatorOptions options) : options_(std::move(options)) {}

  // FAILED_PRECONDITION if the actor's model is another than the learner's. An actor's new
  // incarnation frees the leases of its old one.
  absl::StatusOr<cluster::v1::RegisterResponse> Register(
      const cluster::v1::RegisterRequest& request);

  // Answers with a task as soon as there is one, or with `none` when the request's time, at most a
  // minute, is over. FAILED_PRECONDITION for an old generation or an incarnation that is not
  // registered. An actor waits at most once: a new call answers its older one with `none`, so that
  // there are never more waiting calls than actors. `call` names the call for StopWaiting.
  void LeaseTask(const cluster::v1::LeaseTaskRequest& request, const void* call,
                 LeaseCallback callback);
  // Answers a LeaseTask that waits with `none`, because its call was cancelled.
  void StopWaiting(const void* call);

  // Renews the leases that are named and are the actor's, and only those: one whose hand-out never
  // reached the actor has to end.
  absl::StatusOr<cluster::v1::RenewLeasesResponse> RenewLeases(
      const cluster::v1::RenewLeasesRequest& request);
  // The task waits again. After max_task_attempts the run's error is set.
  absl::Status FailTask(const cluster::v1::FailTaskRequest& request);

  // Adds an epoch's tasks behind those that wait.
  void AddTasks(const std::vector<cluster::v1::RolloutTask>& tasks);
  // Tasks up to this policy version may be handed out.
  void Publish(int64_t policy_version);
  // Sent by an actor whose task another rank has taken.
  absl::Status CompleteTask(const cluster::v1::CompleteTaskRequest& request);
  // All of a task's samples are with the learner.
  void Complete(const std::string& task_id);
  // So are those of all tasks up to this epoch: one that was handed out again, as its actor died
  // before it could say that it was done, is forgotten.
  void CompleteEpoch(int64_t epoch);
  // From now on actors are told to end.
  void End(const std::string& reason);
  // After End: whether every actor heard of within the lease's time has been told.
  bool AllActorsToldEnd() const;

  // Ends leases and waiting that ran out. To be called every few dozen milliseconds.
  void Tick();

  // Sent by an actor that got a policy version.
  absl::Status AckPolicy(const cluster::v1::AckPolicyRequest& request);
  // FAILED_PRECONDITION for a sender of another generation or an unknown incarnation.
  absl::Status CheckSender(const std::string& actor_id, uint64_t incarnation,
                           uint64_t generation) const;

  // Why the run cannot go on, once a task has failed too often. Never CANCELLED.
  absl::Status error() const;
  std::vector<cluster::v1::ActorStatus> ActorStatuses() const;
  // Of those that were heard of lately: an idle actor asks for a task every few seconds.
  std::vector<cluster::v1::ActorStatus> LiveActors() const;
  int64_t policy_version() const;
  int64_t leases() const;
  // Tasks that no actor holds.
  int64_t waiting_tasks() const;
  int64_t expired_leases() const;
  int64_t failed_tasks() const;
  uint64_t generation() const { return options_.generation; }
  const std::string& run_id() const { return options_.run_id; }
  const std::string& model_digest() const { return options_.model_digest; }

 private:
  struct Actor {
    uint64_t incarnation = 0;
    int64_t policy_version = -1;
    absl::Time last_seen;
    bool told_end = false;
    int64_t tasks_lost = 0;
    // Why the last of them came back.
    std::string last_error;
    absl::Time last_error_time;
  };
  struct LeasedTask {
    cluster::v1::RolloutTask task;
    uint64_t lease_id = 0;
    std::string actor_id;
    absl::Time end;
  };
  struct Waiter {
    std::string actor_id;
    absl::Time end;
    const void* call = nullptr;
    LeaseCallback callback;
  };
  // Calls to make once the mutex is free.
  using Answers = std::vector<std::function<void()>>;

  absl::Status CheckSenderLocked(const std::string& actor_id, uint64_t incarnation,
                                 uint64_t generation) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Gives waiting actors what there is for them.
  Answers Match() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The next task that may be handed out, or none.
  std::deque<cluster::v1::RolloutTask>::iterator NextTask() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The task waits again, in front of all later ones.
  void Requeue(const cluster::v1::RolloutTask& task) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes a lease away and counts the attempt; `why` and `code` become the run's error after too
  // many.
  using LeaseMap = std::map<std::string, LeasedTask>;
  LeaseMap::iterator Lose(LeaseMap::iterator leased, absl::StatusCode code, const std::string& why)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Answers a call of the actor that waits, if there is one, with `none`.
  void ReleaseWaiter(const std::string& actor_id, Answers* answers)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const CoordinatorOptions options_;
  mutable absl::Mutex mutex_;
  std::deque<cluster::v1::RolloutTask> waiting_tasks_ ABSL_GUARDED_BY(mutex_);
  LeaseMap leased_ ABSL_GUARDED_BY(mutex_);                      // by task id
  std::map<std::string, int> attempts_ ABSL_GUARDED_BY(mutex_);  // that came back, by task id
  std::map<std::string, Actor> actors_ ABSL_GUARDED_BY(mutex_);
  std::deque<Waiter> waiters_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_lease_id_ ABSL_GUARDED_BY(mutex_) = 1;
  int64_t policy_version_ ABSL_GUARDED_BY(mutex_) = -1;
  int64_t expired_leases_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t failed_tasks_ ABSL_GUARDED_BY(mutex_) = 0;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  std::string end_reason_ ABSL_GUARDED_BY(mutex_);
  absl::Status error_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ddpo
