#pragma once

#include "learner/objective.h"

namespace ddpo {

// DDPO_SF, the score function estimator (arXiv 2305.13301, Eq. 4): mean −A · log π. Meant for one
// update on fresh samples.
class DdpoSfObjective : public Objective {
 public:
  // The scheduler must outlive the objective.
  DdpoSfObjective(const ObjectiveOptions& options, const DdimScheduler& scheduler)
      : options_(options), scheduler_(scheduler) {}

  UnitLoss Loss(const TrainingUnit& unit, const at::Tensor& model_output) const override;
  bool NeedsReference() const override { return options_.kl_coefficient > 0; }

 private:
  const ObjectiveOptions options_;
  const DdimScheduler& scheduler_;
};

}  // namespace ddpo
