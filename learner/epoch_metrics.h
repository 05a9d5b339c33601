#pragma once

#include <cstdint>

#include "learner/policy_trainer.h"
#include "learner/training_step.h"

namespace ddpo {

// Averages of an epoch's optimizer steps, each with the weight of its backward passes.
class EpochMetrics {
 public:
  void Add(const StepMetrics& step, double weight);
  UpdateMetrics Mean() const;

 private:
  UpdateMetrics total_;
  double weight_ = 0;
};

}  // namespace ddpo
