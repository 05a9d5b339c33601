#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "ddpo/cluster/v1/cluster.pb.h"
#include "ddpo/config/v1/config.pb.h"

namespace ddpo {

// What is drawn in which epoch. It follows from the configuration alone, so that a run that was
// resumed goes on with the tasks that it would have had.
class TaskPlanner {
 public:
  // `prompts` are those of the run (LoadPrompts).
  TaskPlanner(const config::v1::Config& config, std::vector<std::string> prompts)
      : config_(config), prompts_(std::move(prompts)) {}

  // The tasks of an epoch, in their order. Each sample's prompt is drawn uniformly, as in the
  // paper. Task b goes to rank b mod learner_ranks. All of them sample with policy version max(0,
  // epoch − max_staleness), never a newer one that happens to be there: so a run's result does not
  // depend on timing even where sampling overlaps learning.
  std::vector<cluster::v1::RolloutTask> PlanEpoch(int64_t epoch) const;

 private:
  const config::v1::Config config_;
  const std::vector<std::string> prompts_;
};

}  // namespace ddpo
