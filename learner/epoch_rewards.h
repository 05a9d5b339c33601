#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "learner/collective/collective.h"
#include "learner/policy_trainer.h"

namespace ddpo {

// What an epoch's samples got, over all ranks, in their canonical order: by task, then by sample
// index, whichever rank has them.
struct EpochRewards {
  std::vector<std::string> prompts;
  std::vector<double> rewards;
  std::vector<size_t> mine;                      // places of this rank's samples
  std::map<std::string, double> reward_details;  // sums
  std::map<std::string, double> actor_seconds;   // sums
  int64_t oldest_policy = 0;                     // version
};

// Gathers them from every rank's samples, which are in canonical order. The same on all ranks, but
// for `mine`. Errors are those of Collective::AllGather.
absl::StatusOr<EpochRewards> GatherRewards(Collective& collective,
                                           absl::Span<const TrainingSample> samples);

}  // namespace ddpo
