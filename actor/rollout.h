#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "actor/reward_client.h"
#include "actor/sampler.h"
#include "ddpo/cluster/v1/cluster.pb.h"

namespace ddpo {

// A leased task on its way through the actor. One stage at a time works on it.
struct Rollout {
  cluster::v1::RolloutTask task;
  uint64_t lease_id = 0;
  uint64_t generation = 0;
  // Set once the work on it is of no use any more: its lease or its generation is over.
  std::atomic<bool> dropped{false};

  SampledBatch batch;
  std::vector<RewardResult> rewards;
  std::map<std::string, double> seconds;  // by phase
};

// The messages that deliver a rollout, one a sample; takes the trajectories out of its batch.
std::vector<cluster::v1::TrajectorySample> ToSamples(Rollout* rollout, const std::string& actor_id);

// The rollouts that an actor has in hand. Thread-safe.
class RolloutTable {
 public:
  std::shared_ptr<Rollout> Add(const cluster::v1::Lease& lease, uint64_t generation);
  void Remove(const Rollout& rollout);

  // Marks those with these leases as dropped, or all of them.
  void Drop(const std::vector<uint64_t>& lease_ids);
  void DropAll();

  std::vector<uint64_t> LeaseIds() const;

  // Waits until leases are to be renewed, which is three times within the shortest one's time.
  // False after Close.
  bool WaitForRenewal();
  void Close();

 private:
  mutable absl::Mutex mutex_;
  std::map<uint64_t, std::shared_ptr<Rollout>> rollouts_ ABSL_GUARDED_BY(mutex_);  // by lease
  absl::Duration lease_duration_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteDuration();
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace ddpo
