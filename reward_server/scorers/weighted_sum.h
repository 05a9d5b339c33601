#pragma once

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "ddpo/config/v1/config.pb.h"
#include "reward_server/scorer.h"

namespace ddpo {

struct WeightedPart {
  std::unique_ptr<Scorer> scorer;
  double weight = 1;
};

// value = Σ weight · value of the parts, of which there is at least one. The details hold each
// part's value as SCORER.value and its own details as SCORER.NAME; an error of a part is the
// image's error.
std::unique_ptr<Scorer> MakeWeightedSumScorer(const std::string& name,
                                              std::vector<WeightedPart> parts);

// Registers scoring.sums. A sum may hold the sums before it. INVALID_ARGUMENT names the sum that
// has no terms, an unknown scorer or the name of another scorer.
absl::Status RegisterWeightedSums(const config::v1::ScoringConfig& config,
                                  ScorerRegistry* registry);

}  // namespace ddpo
