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
  std::string scorer_digest;                     // of the ranks' one scorer; empty if none names it
};

// Gathers them from every rank's samples, which are in canonical order, and the digest of the
// scorer of its rewards, which is empty where no sample has named it. The same on all ranks, but
// for `mine`. FAILED_PRECONDITION names two ranks with different scorers, and the digests; other
// errors are those of Collective::AllGather.
absl::StatusOr<EpochRewards> GatherRewards(Collective& collective,
                                           absl::Span<const TrainingSample> samples,
                                           const std::string& scorer_digest);

}  // namespace ddpo
