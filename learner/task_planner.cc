#include "learner/task_planner.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "common/base/random.h"

namespace ddpo {

std::vector<cluster::v1::RolloutTask> TaskPlanner::PlanEpoch(int64_t epoch) const {
  const int batch_size = config_.sampling().batch_size();
  const uint64_t run_seed = config_.run().seed();
  std::vector<cluster::v1::RolloutTask> tasks;
  for (int batch = 0; batch < config_.sampling().samples_per_epoch() / batch_size; ++batch) {
    cluster::v1::RolloutTask& task = tasks.emplace_back();
    task.set_task_id(absl::StrFormat("e%05d-b%05d", epoch, batch));
    task.set_epoch(epoch);
    task.set_policy_version(std::max<int64_t>(0, epoch - config_.training().max_staleness()));
    task.set_rank(batch % config_.cluster().learner_ranks());
    for (int i = 0; i < batch_size; ++i) {
      const auto index = static_cast<uint64_t>(batch) * static_cast<uint64_t>(batch_size) +
                         static_cast<uint64_t>(i);
      const auto key = static_cast<uint64_t>(epoch);
      task.add_prompts(
          prompts_[DeriveSeed(run_seed, "rollout prompt", key, index) % prompts_.size()]);
      task.add_seeds(DeriveSeed(run_seed, "rollout seed", key, index));
    }
  }
  return tasks;
}

}  // namespace ddpo
