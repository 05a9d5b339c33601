#include "learner/sample_weighting_factory.h"

#include <utility>

#include "common/base/status_macros.h"
#include "learner/advantages.h"
#include "learner/rwr_weights.h"

namespace ddpo {

absl::StatusOr<std::unique_ptr<SampleWeighting>> CreateSampleWeighting(
    const config::v1::TrainingConfig& config) {
  if (config.objective() == "rwr") {
    return CreateRwrWeighting(
        {.beta = config.rwr().beta(), .per_prompt = config.rwr().per_prompt()});
  }
  if (config.objective() == "rwr_sparse") {
    return CreateSparseRwrWeighting(
        {.percentile = config.rwr().percentile(), .max_samples = config.rwr().max_samples()});
  }
  DDPO_ASSIGN_OR_RETURN(PromptStatistics statistics,
                        PromptStatistics::Create({.buffer_size = config.stat_buffer_size(),
                                                  .min_count = config.stat_min_count(),
                                                  .clip = config.adv_clip()}));
  return std::make_unique<PromptStatistics>(std::move(statistics));
}

}  // namespace ddpo
