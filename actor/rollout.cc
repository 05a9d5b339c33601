#include "actor/rollout.h"

#include <utility>

namespace ddpo {
namespace {

// Floats as they lie in memory: little-endian on every machine that LibTorch runs on.
std::string ToBytes(const std::vector<float>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

}  // namespace

std::vector<cluster::v1::TrajectorySample> ToSamples(Rollout* rollout,
                                                     const std::string& actor_id) {
  std::vector<cluster::v1::TrajectorySample> samples;
  samples.reserve(rollout->batch.samples.size());
  for (size_t i = 0; i < rollout->batch.samples.size(); ++i) {
    SampledTrajectory& trajectory = rollout->batch.samples[i];
    const RewardResult& reward = rollout->rewards[i];
    cluster::v1::TrajectorySample& sample = samples.emplace_back();
    sample.set_generation(rollout->generation);
    sample.set_actor_id(actor_id);
    sample.set_task_id(rollout->task.task_id());
    sample.set_lease_id(rollout->lease_id);
    sample.set_sample_index(static_cast<int>(i));
    sample.set_epoch(rollout->task.epoch());
    sample.set_policy_version(rollout->task.policy_version());
    sample.set_num_steps(rollout->batch.num_steps);
    sample.set_latent_channels(rollout->batch.latent_channels);
    sample.set_latent_height(rollout->batch.latent_height);
    sample.set_latent_width(rollout->batch.latent_width);
    sample.set_latents(ToBytes(trajectory.latents));
    sample.set_log_probs(ToBytes(trajectory.log_probs));
    sample.set_reward(reward.value);
    for (const auto& [name, value] : reward.details) {
      (*sample.mutable_reward_details())[name] = value;
    }
    sample.set_scorer_digest(reward.scorer_digest);
    if (i == 0) {
      for (const auto& [phase, seconds] : rollout->seconds) {
        (*sample.mutable_seconds())[phase] = seconds;
      }
    }
    trajectory = {};
  }
  return samples;
}

std::shared_ptr<Rollout> RolloutTable::Add(const cluster::v1::Lease& lease, uint64_t generation) {
  auto rollout = std::make_shared<Rollout>();
  rollout->task = lease.task();
  rollout->lease_id = lease.lease_id();
  rollout->generation = generation;
  absl::MutexLock lock(&mutex_);
  rollouts_[lease.lease_id()] = rollout;
  lease_duration_ = absl::Milliseconds(lease.duration_ms());
  return rollout;
}

void RolloutTable::Remove(const Rollout& rollout) {
  absl::MutexLock lock(&mutex_);
  const auto found = rollouts_.find(rollout.lease_id);
  // Another generation may have given another task the same lease id.
  if (found != rollouts_.end() && found->second.get() == &rollout) rollouts_.erase(found);
}

void RolloutTable::Drop(const std::vector<uint64_t>& lease_ids) {
  absl::MutexLock lock(&mutex_);
  for (const uint64_t lease_id : lease_ids) {
    const auto found = rollouts_.find(lease_id);
    if (found == rollouts_.end()) continue;
    found->second->dropped = true;
    rollouts_.erase(found);
  }
}

void RolloutTable::DropAll() {
  absl::MutexLock lock(&mutex_);
  for (const auto& [lease_id, rollout] : rollouts_) rollout->dropped = true;
  rollouts_.clear();
}

std::vector<uint64_t> RolloutTable::LeaseIds() const {
  absl::MutexLock lock(&mutex_);
  std::vector<uint64_t> ids;
  for (const auto& [lease_id, rollout] : rollouts_) ids.push_back(lease_id);
  return ids;
}

bool RolloutTable::WaitForRenewal() {
  absl::MutexLock lock(&mutex_);
  const auto holds_some = [this] {
    mutex_.AssertHeld();
    return closed_ || !rollouts_.empty();
  };
  mutex_.Await(absl::Condition(&holds_some));
  mutex_.AwaitWithTimeout(absl::Condition(&closed_), lease_duration_ / 3);
  return !closed_;
}

void RolloutTable::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
}

}  // namespace ddpo
