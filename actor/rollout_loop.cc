#include "actor/rollout_loop.h"

#include <prometheus/counter.h>

#include <algorithm>
#include <cmath>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/kill_point.h"
#include "common/base/logging.h"
#include "common/base/random.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

// How often an actor that is asked to stop tries to get a policy or to deliver a batch: a
// connection that breaks comes back, and a learner that is gone does not hold the stop up.
constexpr int kTriesWhileStopping = 3;

// How often a sampler that waits for room looks at what it waits for.
constexpr absl::Duration kLook = absl::Milliseconds(50);

double SecondsSince(absl::Time start) { return absl::ToDoubleSeconds(absl::Now() - start); }

// Time that passes without work, counted in pieces so that a long wait shows while it goes on.
class IdleTime {
 public:
  // Counts what has passed since the last call, or since the start.
  void CountFor(prometheus::Counter& cause) {
    const absl::Time now = absl::Now();
    cause.Increment(absl::ToDoubleSeconds(now - counted_));
    counted_ = now;
  }

 private:
  absl::Time counted_ = absl::Now();
};

}  // namespace

RolloutLoop::RolloutLoop(const RolloutLoopOptions& options, const RolloutParts& parts)
    : options_(options), parts_(parts), watch_(options.stall_limit, options.clock) {}

absl::Status RolloutLoop::Run() {
  std::thread renewal([this] { RenewalThread(); });
  std::thread reward([this] { RewardStage(); });
  std::thread delivery([this] { DeliveryStage(); });
  SampleStage();
  sampled_.Close();
  reward.join();
  scored_.Close();
  delivery.join();
  table_.Close();
  renewal.join();
  absl::MutexLock lock(&mutex_);
  return failure_;
}

void RolloutLoop::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  parts_.learner->StopWaitingForTask();
}

void RolloutLoop::Abort() {
  EndAll();
  parts_.learner->Abort();
}

void RolloutLoop::EndAll() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    ending_ = true;
  }
  table_.DropAll();
  sampled_.Abort();
  scored_.Abort();
  parts_.learner->StopWaitingForTask();
}

void RolloutLoop::Fail(const absl::Status& status) {
  {
    absl::MutexLock lock(&mutex_);
    if (failure_.ok() && !ending_) failure_ = status;
  }
  EndAll();
}

void RolloutLoop::LoseGeneration(uint64_t generation) {
  // In one piece: until the loop knows of a new registration, nothing of it is in the table.
  absl::MutexLock lock(&mutex_);
  if (generation != parts_.learner->generation()) return;
  registered_ = false;
  table_.DropAll();
}

absl::Status RolloutLoop::FromLearner(const absl::Status& status, uint64_t generation) {
  if (absl::IsFailedPrecondition(status)) {
    LogInfo("the learner does not know this actor: ", status.message());
    LoseGeneration(generation);
  }
  return status;
}

bool RolloutLoop::stopping() const {
  absl::MutexLock lock(&mutex_);
  return stopping_;
}

bool RolloutLoop::ending() const {
  absl::MutexLock lock(&mutex_);
  return ending_;
}

std::function<bool()> RolloutLoop::UselessOrEnding(const Rollout& rollout) const {
  return [this, &rollout] { return rollout.dropped || ending(); };
}

RetryOptions RolloutLoop::Retry(std::function<bool()> cancelled) const {
  RetryOptions options;
  options.give_up_after = options_.give_up_after;
  options.first_pause = options_.first_pause;
  options.max_pause = options_.max_pause;
  options.jitter_seed = DeriveSeed(0, options_.actor_id);
  options.cancelled = std::move(cancelled);
  return options;
}

void RolloutLoop::UpdateQueueDepth() {
  parts_.metrics->queue_depth.Set(static_cast<double>(sampled_.size() + scored_.size()));
}

absl::Status RolloutLoop::EnsureRegistered() {
  {
    absl::MutexLock lock(&mutex_);
    if (registered_) return absl::OkStatus();
  }
  const auto response = parts_.learner->Register(options_.model_digest);
  DDPO_RETURN_IF_ERROR(response.status());
  if (response->config() != options_.config) {
    return absl::InvalidArgumentError(
        "the learner was started anew with another configuration; start this actor anew too");
  }
  LogInfo("registered again, generation ", response->generation());
  parts_.policies->Reset();
  absl::MutexLock lock(&mutex_);
  registered_ = true;
  return absl::OkStatus();
}

absl::StatusOr<cluster::v1::LeaseTaskResponse> RolloutLoop::LeaseTask() {
  DDPO_RETURN_IF_ERROR(EnsureRegistered());
  const uint64_t generation = parts_.learner->generation();
  auto response = parts_.learner->LeaseTask(options_.lease_wait);
  if (!absl::IsFailedPrecondition(FromLearner(response.status(), generation))) return response;
  // A Register that answers FAILED_PRECONDITION itself is final: the model is another.
  DDPO_RETURN_IF_ERROR(EnsureRegistered());
  return absl::UnavailableError("registered again");
}

std::optional<RolloutLoop::RolloutPtr> RolloutLoop::NextRollout() {
  IdleTime idle;
  while (!stopping()) {
    cluster::v1::LeaseTaskResponse response;
    const absl::Status status =
        CallWithRetry("leasing a task", Retry([this] { return stopping(); }), [&](absl::Time) {
          auto answer = LeaseTask();
          idle.CountFor(parts_.metrics->idle_seconds["task"]);
          if (answer.ok()) response = *std::move(answer);
          return answer.status();
        });
    if (!status.ok()) {
      if (!stopping()) Fail(status);
      return std::nullopt;
    }
    if (response.has_ended()) {
      LogInfo("the learner says that the run is over: ", response.ended().reason());
      EndAll();
      return std::nullopt;
    }
    if (response.has_lease()) {
      return table_.Add(response.lease(), parts_.learner->generation());
    }
  }
  return std::nullopt;
}

void RolloutLoop::SampleStage() {
  while (std::optional<RolloutPtr> rollout = NextRollout()) {
    const absl::Status status = SampleRollout(rollout->get());
    if (!status.ok()) {
      GiveUp(**rollout, status);
      continue;
    }
    // Refused only at the very end, when the rollout is dropped.
    if (!PushSampled(*rollout).ok()) GiveUp(**rollout, absl::CancelledError("ending"));
    UpdateQueueDepth();
  }
}

absl::Status RolloutLoop::PushSampled(const RolloutPtr& rollout) {
  IdleTime idle;
  while (true) {
    // Rewards that cannot be passed on either wait for the delivery, as the sampler does then.
    const bool delivery_is_behind = scored_.size() == kQueued;
    const absl::Status status = sampled_.PushBefore(rollout, absl::Now() + kLook);
    idle.CountFor(parts_.metrics->idle_seconds[delivery_is_behind ? "delivery" : "reward"]);
    if (!absl::IsDeadlineExceeded(status)) return status;
  }
}

StallWatch::Work RolloutLoop::WatchSampler(const Rollout& rollout) {
  return StallWatch::Work(&watch_, [this, &rollout] {
    const std::string& task_id = rollout.task.task_id();
    LogError("task ", task_id, ": sampling made no progress for ",
             absl::FormatDuration(options_.stall_limit),
             " (cluster.actor_stall_seconds): it hangs");
    table_.Drop({rollout.lease_id});
    if (parts_.on_stall) parts_.on_stall(task_id);
  });
}

absl::Status RolloutLoop::SampleRollout(Rollout* rollout) {
  DDPO_RETURN_IF_ERROR(UsePolicy(*rollout));
  const absl::Time start = absl::Now();
  const std::vector<std::string> prompts(rollout->task.prompts().begin(),
                                         rollout->task.prompts().end());
  const std::vector<uint64_t> seeds(rollout->task.seeds().begin(), rollout->task.seeds().end());
  // The sampler asks at each denoising step.
  const auto cancelled = [this, useless = UselessOrEnding(*rollout)] {
    watch_.Progress();
    return useless();
  };
  {
    const StallWatch::Work work = WatchSampler(*rollout);
    KillPoint("actor.sampling");
    DDPO_ASSIGN_OR_RETURN(rollout->batch, parts_.sampler->Sample(prompts, seeds, cancelled));
  }
  if (rollout->batch.samples.size() != prompts.size()) {
    return absl::InternalError(absl::StrCat("the sampler made ", rollout->batch.samples.size(),
                                            " samples of ", prompts.size(), " prompts"));
  }
  rollout->seconds["denoise"] = SecondsSince(start);
  parts_.metrics->phase_seconds["denoise"].Observe(rollout->seconds["denoise"]);
  parts_.metrics->samples.Increment(static_cast<double>(prompts.size()));
  return absl::OkStatus();
}

absl::Status RolloutLoop::UsePolicy(const Rollout& rollout) {
  IdleTime idle;
  const int64_t version = rollout.task.policy_version();
  std::shared_ptr<const Policy> policy;
  const auto useless = UselessOrEnding(rollout);
  int attempts = 0;
  const auto cancelled = [&] {
    return useless() || (attempts >= kTriesWhileStopping && stopping());
  };
  DDPO_RETURN_IF_ERROR(CallWithRetry(absl::StrCat("getting policy version ", version),
                                     Retry(cancelled), [&](absl::Time) {
                                       ++attempts;
                                       auto found = parts_.policies->WaitFor(version, useless);
                                       idle.CountFor(parts_.metrics->idle_seconds["policy"]);
                                       if (found.ok()) policy = *std::move(found);
                                       return FromLearner(found.status(), rollout.generation);
                                     }));
  if (policy->sha256 != policy_sha256_) {
    policy_sha256_.clear();
    const StallWatch::Work work = WatchSampler(rollout);
    DDPO_RETURN_IF_ERROR(parts_.sampler->SetPolicy(policy->bytes));
    policy_sha256_ = policy->sha256;
  }
  parts_.metrics->policy_version.Set(static_cast<double>(version));
  if (acked_version_ == version && acked_generation_ == rollout.generation) {
    return absl::OkStatus();
  }
  // An ack is for the learner's metrics; sampling does not wait for a second try.
  const absl::Status acked =
      FromLearner(parts_.learner->AckPolicy(version, policy->sha256), rollout.generation);
  if (acked.ok()) {
    acked_version_ = version;
    acked_generation_ = rollout.generation;
    return acked;
  }
  if (absl::IsDataLoss(acked)) {
    parts_.metrics->policies_refused.Increment();
    parts_.policies->Reset();
  }
  if (absl::IsDataLoss(acked) || absl::IsFailedPrecondition(acked)) return acked;
  LogWarning("policy version ", version, " is not acknowledged: ", acked.ToString());
  return absl::OkStatus();
}

void RolloutLoop::RewardStage() {
  while (true) {
    auto popped = sampled_.Pop();
    if (!popped.ok()) return;
    UpdateQueueDepth();
    const RolloutPtr rollout = *std::move(popped);
    absl::Status status = ScoreRollout(rollout.get());
    if (status.ok()) status = scored_.Push(rollout);
    if (!status.ok()) GiveUp(*rollout, status);
  }
}

absl::Status RolloutLoop::ScoreRollout(Rollout* rollout) {
  const absl::Time start = absl::Now();
  std::vector<Image> images;
  for (SampledTrajectory& sample : rollout->batch.samples) {
    images.push_back(std::move(sample.image));
  }
  const std::vector<std::string> prompts(rollout->task.prompts().begin(),
                                         rollout->task.prompts().end());
  auto rewards = parts_.score(images, prompts, UselessOrEnding(*rollout));
  if (rewards.ok() && rewards->size() != images.size()) {
    rewards = absl::InternalError(
        absl::StrCat("got ", rewards->size(), " rewards for ", images.size(), " images"));
  }
  if (rewards.ok()) {
    for (const RewardResult& reward : *rewards) {
      if (!std::isfinite(reward.value)) {
        rewards = absl::InternalError("a reward is not finite");
        break;
      }
    }
  }
  if (!rewards.ok()) {
    if (!rollout->dropped) {
      parts_.metrics->reward_failures.Increment(static_cast<double>(images.size()));
    }
    return absl::Status(rewards.status().code(),
                        absl::StrCat("no rewards: ", rewards.status().message()));
  }
  rollout->rewards = *std::move(rewards);
  rollout->seconds["reward"] = SecondsSince(start);
  parts_.metrics->phase_seconds["reward"].Observe(rollout->seconds["reward"]);
  return absl::OkStatus();
}

void RolloutLoop::DeliveryStage() {
  while (true) {
    auto popped = scored_.Pop();
    if (!popped.ok()) return;
    UpdateQueueDepth();
    const RolloutPtr rollout = *std::move(popped);
    const absl::Time start = absl::Now();
    const absl::Status status = DeliverRollout(rollout.get());
    if (!status.ok()) {
      // A learner that is gone for so long does not come back for the next batch either.
      if (IsRetryable(status) && !stopping()) Fail(status);
      GiveUp(*rollout, status);
      continue;
    }
    parts_.metrics->phase_seconds["deliver"].Observe(SecondsSince(start));
    parts_.metrics->tasks["delivered"].Increment();
    table_.Remove(*rollout);
  }
}

absl::Status RolloutLoop::DeliverRollout(Rollout* rollout) {
  const std::vector<cluster::v1::TrajectorySample> samples = ToSamples(rollout, options_.actor_id);
  std::vector<const cluster::v1::TrajectorySample*> unacked;
  for (const cluster::v1::TrajectorySample& sample : samples) unacked.push_back(&sample);
  absl::Status refusal;
  const auto on_ack = [&](const cluster::v1::SampleAck& ack) {
    std::erase_if(unacked,
                  [&](const auto* sample) { return sample->sample_index() == ack.sample_index(); });
    if (ack.outcome() == cluster::v1::SampleAck::REFUSED) {
      refusal = absl::InvalidArgumentError(
          absl::StrCat("the learner refused sample ", ack.sample_index(), ": ", ack.message()));
    }
  };
  KillPoint("actor.before_delivery");
  const auto useless = UselessOrEnding(*rollout);
  int attempts = 0;
  const auto cancelled = [&] {
    return useless() || (attempts >= kTriesWhileStopping && stopping());
  };
  DDPO_RETURN_IF_ERROR(CallWithRetry(
      absl::StrCat("delivering task ", rollout->task.task_id()), Retry(cancelled), [&](absl::Time) {
        if (attempts++ > 0) {
          parts_.metrics->samples_redelivered.Increment(static_cast<double>(unacked.size()));
        }
        const auto sending = unacked;  // on_ack changes the list
        return FromLearner(parts_.learner->Deliver(rollout->task.ingest_address(), sending,
                                                   options_.delivery_timeout, on_ack, useless),
                           rollout->generation);
      }));
  DDPO_RETURN_IF_ERROR(refusal);
  KillPoint("actor.after_delivery");
  // The coordinator sees what its own rank takes.
  if (rollout->task.ingest_address().empty()) return absl::OkStatus();
  attempts = 0;
  const absl::Status told = CallWithRetry(
      absl::StrCat("completing task ", rollout->task.task_id()), Retry(cancelled), [&](absl::Time) {
        ++attempts;
        return FromLearner(
            parts_.learner->CompleteTask(rollout->task.task_id(), rollout->generation),
            rollout->generation);
      });
  // Its rank has the batch. With the last one the run may be over before this is through.
  return ending() ? absl::OkStatus() : told;
}

void RolloutLoop::GiveUp(const Rollout& rollout, const absl::Status& why) {
  table_.Remove(rollout);
  if (rollout.dropped || ending()) {
    LogInfo("dropped task ", rollout.task.task_id(), ": ", why.message());
    parts_.metrics->tasks["lost"].Increment();
    return;
  }
  LogWarning("giving task ", rollout.task.task_id(), " back: ", why.ToString());
  parts_.metrics->tasks["failed"].Increment();
  const absl::Status told =
      parts_.learner->FailTask(rollout.task.task_id(), rollout.lease_id, rollout.generation, why);
  if (!told.ok()) LogWarning("the learner was not told: ", told.ToString());
  absl::MutexLock lock(&mutex_);
  mutex_.AwaitWithTimeout(absl::Condition(&stopping_), options_.max_pause);
}

void RolloutLoop::RenewalThread() {
  while (table_.WaitForRenewal()) {
    const std::vector<uint64_t> lease_ids = table_.LeaseIds();
    if (lease_ids.empty()) continue;
    const uint64_t generation = parts_.learner->generation();
    const auto lost = parts_.learner->RenewLeases(lease_ids);
    if (lost.ok()) {
      table_.Drop(*lost);
    } else if (!absl::IsFailedPrecondition(FromLearner(lost.status(), generation))) {
      LogWarning("leases are not renewed: ", lost.status().ToString());
    }
  }
}

}  // namespace ddpo
