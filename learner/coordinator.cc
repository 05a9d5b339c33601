#include "learner/coordinator.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

using cluster::v1::LeaseTaskResponse;
using cluster::v1::RolloutTask;

LeaseTaskResponse NoTask() {
  LeaseTaskResponse response;
  response.mutable_none();
  return response;
}

// An actor asks again at once, so there is no use in longer waits.
constexpr absl::Duration kLongestWait = absl::Minutes(1);
// An idle actor asks for a task every ten seconds, however short its leases are.
constexpr absl::Duration kActorSilence = absl::Seconds(30);
// The first 500 bytes at most, cut between characters of UTF-8, as the wire wants it: each actor's
// last error is kept.
std::string Shortened(const std::string& text) {
  size_t end = 500;
  if (text.size() <= end) return text;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

void Run(const std::vector<std::function<void()>>& answers) {
  for (const auto& answer : answers) answer();
}

}  // namespace

absl::StatusOr<cluster::v1::RegisterResponse> Coordinator::Register(
    const cluster::v1::RegisterRequest& request) {
  if (request.actor_id().empty()) return absl::InvalidArgumentError("actor_id is empty");
  if (!request.model_digest().empty() && request.model_digest() != options_.model_digest) {
    return absl::FailedPreconditionError(
        absl::StrCat("actor ", request.actor_id(), " has a base model with digest ",
                     request.model_digest(), ", the learner's is ", options_.model_digest));
  }
  Answers answers;
  cluster::v1::RegisterResponse response;
  {
    absl::MutexLock lock(&mutex_);
    Actor& actor = actors_[request.actor_id()];
    if (actor.incarnation != request.incarnation()) {
      for (auto it = leased_.begin(); it != leased_.end();) {
        if (it->second.actor_id != request.actor_id()) {
          ++it;
          continue;
        }
        it = Lose(it, absl::StatusCode::kUnavailable, "the actor was started anew");
      }
      ReleaseWaiter(request.actor_id(), &answers);
      // Its errors stay known: why the old incarnation ended is what one looks for.
      actor.incarnation = request.incarnation();
      actor.policy_version = -1;
      actor.told_end = false;
    }
    actor.last_seen = options_.clock->Now();
    response.set_policy_version(policy_version_);
    for (auto& answer : Match()) answers.push_back(std::move(answer));
  }
  Run(answers);
  response.set_run_id(options_.run_id);
  response.set_generation(options_.generation);
  response.set_config(options_.config);
  response.set_model_digest(options_.model_digest);
  return response;
}

absl::Status Coordinator::CheckSenderLocked(const std::string& actor_id, uint64_t incarnation,
                                            uint64_t generation) const {
  if (generation != options_.generation) {
    return absl::FailedPreconditionError(absl::StrCat("generation ", generation,
                                                      ", the learner is at ", options_.generation,
                                                      ": register again"));
  }
  const auto actor = actors_.find(actor_id);
  if (actor == actors_.end() || actor->second.incarnation != incarnation) {
    return absl::FailedPreconditionError(
        absl::StrCat("actor ", actor_id, " is not registered with this incarnation"));
  }
  return absl::OkStatus();
}

absl::Status Coordinator::CheckSender(const std::string& actor_id, uint64_t incarnation,
                                      uint64_t generation) const {
  absl::MutexLock lock(&mutex_);
  return CheckSenderLocked(actor_id, incarnation, generation);
}

void Coordinator::LeaseTask(const cluster::v1::LeaseTaskRequest& request, const void* call,
                            LeaseCallback callback) {
  Answers answers;
  absl::Status status;
  {
    absl::MutexLock lock(&mutex_);
    status = CheckSenderLocked(request.actor_id(), request.incarnation(), request.generation());
    if (status.ok()) {
      const absl::Time now = options_.clock->Now();
      actors_[request.actor_id()].last_seen = now;
      ReleaseWaiter(request.actor_id(), &answers);
      const absl::Duration wait = std::min(absl::Milliseconds(request.wait_ms()), kLongestWait);
      waiters_.push_back({request.actor_id(), now + wait, call, std::move(callback)});
      for (auto& answer : Match()) answers.push_back(std::move(answer));
    }
  }
  if (!status.ok()) return callback(status, {});
  Run(answers);
}

void Coordinator::StopWaiting(const void* call) {
  LeaseCallback callback;
  {
    absl::MutexLock lock(&mutex_);
    const auto waiter = std::find_if(waiters_.begin(), waiters_.end(),
                                     [&](const Waiter& w) { return w.call == call; });
    if (waiter == waiters_.end()) return;
    callback = std::move(waiter->callback);
    waiters_.erase(waiter);
  }
  callback(absl::OkStatus(), NoTask());
}

std::deque<RolloutTask>::iterator Coordinator::NextTask() {
  return std::find_if(waiting_tasks_.begin(), waiting_tasks_.end(),
                      [this](const RolloutTask& task) {
                        mutex_.AssertHeld();
                        return task.policy_version() <= policy_version_;
                      });
}

Coordinator::Answers Coordinator::Match() {
  Answers answers;
  while (!waiters_.empty()) {
    LeaseTaskResponse response;
    if (ended_) {
      response.mutable_ended()->set_reason(end_reason_);
      actors_[waiters_.front().actor_id].told_end = true;
    } else {
      const auto next = NextTask();
      if (next == waiting_tasks_.end()) break;
      const Waiter& waiter = waiters_.front();
      LeasedTask leased{.task = std::move(*next),
                        .lease_id = next_lease_id_++,
                        .actor_id = waiter.actor_id,
                        .end = options_.clock->Now() + options_.lease_duration};
      waiting_tasks_.erase(next);
      *response.mutable_lease()->mutable_task() = leased.task;
      response.mutable_lease()->set_lease_id(leased.lease_id);
      response.mutable_lease()->set_duration_ms(absl::ToInt64Milliseconds(options_.lease_duration));
      const std::string id = leased.task.task_id();
      leased_[id] = std::move(leased);
    }
    answers.push_back([callback = std::move(waiters_.front().callback), response] {
      callback(absl::OkStatus(), response);
    });
    waiters_.pop_front();
  }
  return answers;
}

void Coordinator::Requeue(const RolloutTask& task) {
  const auto later =
      std::find_if(waiting_tasks_.begin(), waiting_tasks_.end(),
                   [&](const RolloutTask& waiting) { return waiting.task_id() > task.task_id(); });
  waiting_tasks_.insert(later, task);
}

Coordinator::LeaseMap::iterator Coordinator::Lose(LeaseMap::iterator leased, absl::StatusCode code,
                                                  const std::string& why) {
  const std::string& task_id = leased->first;
  Actor& actor = actors_[leased->second.actor_id];
  ++actor.tasks_lost;
  actor.last_error = Shortened(why);
  actor.last_error_time = options_.clock->Now();
  const int attempts = ++attempts_[task_id];
  if (attempts >= options_.max_task_attempts && error_.ok()) {
    error_ = absl::Status(
        code, absl::StrCat("task ", task_id, " came back undone ", attempts,
                           " times, last from actor ", leased->second.actor_id, ": ", why));
  }
  Requeue(leased->second.task);
  return leased_.erase(leased);
}

void Coordinator::ReleaseWaiter(const std::string& actor_id, Answers* answers) {
  const auto waiter = std::find_if(waiters_.begin(), waiters_.end(),
                                   [&](const Waiter& w) { return w.actor_id == actor_id; });
  if (waiter == waiters_.end()) return;
  answers->push_back(
      [callback = std::move(waiter->callback)] { callback(absl::OkStatus(), NoTask()); });
  waiters_.erase(waiter);
}

absl::StatusOr<cluster::v1::RenewLeasesResponse> Coordinator::RenewLeases(
    const cluster::v1::RenewLeasesRequest& request) {
  absl::MutexLock lock(&mutex_);
  DDPO_RETURN_IF_ERROR(
      CheckSenderLocked(request.actor_id(), request.incarnation(), request.generation()));
  const absl::Time now = options_.clock->Now();
  actors_[request.actor_id()].last_seen = now;
  std::set<uint64_t> lost(request.lease_ids().begin(), request.lease_ids().end());
  for (auto& [id, leased] : leased_) {
    // Ids begin at 1 in each generation: that of a batch from before may be another actor's lease.
    if (leased.actor_id != request.actor_id()) continue;
    if (lost.erase(leased.lease_id) > 0) leased.end = now + options_.lease_duration;
  }
  cluster::v1::RenewLeasesResponse response;
  response.mutable_lost_lease_ids()->Assign(lost.begin(), lost.end());
  return response;
}

absl::Status Coordinator::FailTask(const cluster::v1::FailTaskRequest& request) {
  Answers answers;
  {
    absl::MutexLock lock(&mutex_);
    DDPO_RETURN_IF_ERROR(
        CheckSenderLocked(request.actor_id(), request.incarnation(), request.generation()));
    const auto leased = leased_.find(request.task_id());
    if (leased == leased_.end() || leased->second.lease_id != request.lease_id()) {
      return absl::OkStatus();  // another has it by now, or it is complete
    }
    ++failed_tasks_;
    auto code = static_cast<absl::StatusCode>(request.code());
    // As the run's error these would be its success, or a stop that was asked for.
    if (code == absl::StatusCode::kOk || code == absl::StatusCode::kCancelled) {
      code = absl::StatusCode::kUnknown;
    }
    Lose(leased, code, request.message());
    answers = Match();
  }
  Run(answers);
  return absl::OkStatus();
}

void Coordinator::AddTasks(const std::vector<RolloutTask>& tasks) {
  Answers answers;
  {
    absl::MutexLock lock(&mutex_);
    for (const RolloutTask& task : tasks) Requeue(task);
    answers = Match();
  }
  Run(answers);
}

void Coordinator::Publish(int64_t policy_version) {
  Answers answers;
  {
    absl::MutexLock lock(&mutex_);
    policy_version_ = policy_version;
    answers = Match();
  }
  Run(answers);
}

absl::Status Coordinator::CompleteTask(const cluster::v1::CompleteTaskRequest& request) {
  DDPO_RETURN_IF_ERROR(
      CheckSender(request.actor_id(), request.incarnation(), request.generation()));
  Complete(request.task_id());
  return absl::OkStatus();
}

void Coordinator::Complete(const std::string& task_id) {
  absl::MutexLock lock(&mutex_);
  leased_.erase(task_id);
  attempts_.erase(task_id);
  // A lost lease's samples may have come after all, while the task waited again.
  const auto waiting =
      std::find_if(waiting_tasks_.begin(), waiting_tasks_.end(),
                   [&](const RolloutTask& task) { return task.task_id() == task_id; });
  if (waiting != waiting_tasks_.end()) waiting_tasks_.erase(waiting);
}

void Coordinator::CompleteEpoch(int64_t epoch) {
  absl::MutexLock lock(&mutex_);
  const auto done = [&](const RolloutTask& task) {
    if (task.epoch() > epoch) return false;
    mutex_.AssertHeld();
    attempts_.erase(task.task_id());
    return true;
  };
  std::erase_if(waiting_tasks_, done);
  std::erase_if(leased_, [&](const auto& leased) { return done(leased.second.task); });
}

void Coordinator::End(const std::string& reason) {
  Answers answers;
  {
    absl::MutexLock lock(&mutex_);
    ended_ = true;
    end_reason_ = reason;
    answers = Match();
  }
  Run(answers);
}

void Coordinator::Tick() {
  Answers answers;
  {
    absl::MutexLock lock(&mutex_);
    const absl::Time now = options_.clock->Now();
    for (auto it = leased_.begin(); it != leased_.end();) {
      if (it->second.end > now) {
        ++it;
        continue;
      }
      ++expired_leases_;
      it = Lose(it, absl::StatusCode::kUnavailable, "its lease ran out without being renewed");
    }
    answers = Match();
    for (auto it = waiters_.begin(); it != waiters_.end();) {
      if (it->end > now) {
        ++it;
        continue;
      }
      answers.push_back(
          [callback = std::move(it->callback)] { callback(absl::OkStatus(), NoTask()); });
      it = waiters_.erase(it);
    }
    std::set<std::string> busy;
    for (const auto& [id, leased] : leased_) busy.insert(leased.actor_id);
    for (const Waiter& waiter : waiters_) busy.insert(waiter.actor_id);
    std::erase_if(actors_, [&](const auto& actor) {
      return actor.second.last_seen + options_.forget_after < now && !busy.contains(actor.first);
    });
  }
  Run(answers);
}

bool Coordinator::AllActorsToldEnd() const {
  absl::MutexLock lock(&mutex_);
  const absl::Time now = options_.clock->Now();
  return std::all_of(actors_.begin(), actors_.end(), [&](const auto& actor) {
    return actor.second.told_end || actor.second.last_seen + options_.lease_duration < now;
  });
}

absl::Status Coordinator::AckPolicy(const cluster::v1::AckPolicyRequest& request) {
  absl::MutexLock lock(&mutex_);
  DDPO_RETURN_IF_ERROR(
      CheckSenderLocked(request.actor_id(), request.incarnation(), request.generation()));
  Actor& actor = actors_[request.actor_id()];
  actor.policy_version = request.version();
  actor.last_seen = options_.clock->Now();
  return absl::OkStatus();
}

absl::Status Coordinator::error() const {
  absl::MutexLock lock(&mutex_);
  return error_;
}

std::vector<cluster::v1::ActorStatus> Coordinator::ActorStatuses() const {
  absl::MutexLock lock(&mutex_);
  const absl::Time now = options_.clock->Now();
  std::vector<cluster::v1::ActorStatus> statuses;
  for (const auto& [id, actor] : actors_) {
    cluster::v1::ActorStatus& status = statuses.emplace_back();
    status.set_actor_id(id);
    status.set_policy_version(actor.policy_version);
    status.set_last_seen_seconds(absl::ToDoubleSeconds(now - actor.last_seen));
    status.set_tasks_lost(actor.tasks_lost);
    if (actor.tasks_lost > 0) {
      status.set_last_error(actor.last_error);
      status.set_last_error_age_seconds(absl::ToDoubleSeconds(now - actor.last_error_time));
    }
    for (const auto& [task_id, leased] : leased_) {
      if (leased.actor_id == id) status.add_task_ids(task_id);
    }
  }
  return statuses;
}

std::vector<cluster::v1::ActorStatus> Coordinator::LiveActors() const {
  const double silence = absl::ToDoubleSeconds(std::max(kActorSilence, options_.lease_duration));
  std::vector<cluster::v1::ActorStatus> live = ActorStatuses();
  std::erase_if(live, [&](const auto& actor) { return actor.last_seen_seconds() > silence; });
  return live;
}

int64_t Coordinator::policy_version() const {
  absl::MutexLock lock(&mutex_);
  return policy_version_;
}

int64_t Coordinator::leases() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int64_t>(leased_.size());
}

int64_t Coordinator::waiting_tasks() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int64_t>(waiting_tasks_.size());
}

int64_t Coordinator::expired_leases() const {
  absl::MutexLock lock(&mutex_);
  return expired_leases_;
}

int64_t Coordinator::failed_tasks() const {
  absl::MutexLock lock(&mutex_);
  return failed_tasks_;
}

}  // namespace ddpo
