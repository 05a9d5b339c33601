#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "learner/gradient_workers.h"
#include "learner/policy_trainer.h"
#include "learner/trainable_policy.h"

namespace ddpo {

// What an epoch's update learns from.
struct EpochSamples {
  absl::Span<const TrainingSample> samples;  // in their canonical order
  absl::Span<const double> weights;          // one a sample: its advantage, or its weight in RWR
  int64_t epoch = 0;
};

// One epoch's optimizer steps, by the kind of objective.
class EpochUpdate {
 public:
  virtual ~EpochUpdate() = default;

  // INVALID_ARGUMENT names a sample that does not fit; OUT_OF_RANGE the step of a loss or gradient
  // that is not finite. Leaves UpdateMetrics::weights_changed to the caller.
  virtual absl::StatusOr<UpdateMetrics> Run(const EpochSamples& samples, GradientWorkers& workers,
                                            TrainablePolicy& policy) const = 0;
};

}  // namespace ddpo
