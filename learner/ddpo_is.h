#pragma once

#include "learner/objective.h"

namespace ddpo {

// DDPO_IS, the importance-sampled, clipped policy gradient (arXiv 2305.13301, Eq. 5 with PPO's
// clipping): mean max(−A · ratio, −A · clip(ratio, 1 ± clip_range)), ratio = π / π_old. Decoupled
// (arXiv 2110.00641): ratio = π / π_start, with min(π_start / π_old, limit) · A for A.
class DdpoIsObjective : public Objective {
 public:
  // The scheduler must outlive the objective.
  DdpoIsObjective(const ObjectiveOptions& options, const DdimScheduler& scheduler)
      : options_(options), scheduler_(scheduler) {}

  UnitLoss Loss(const TrainingUnit& unit, const at::Tensor& model_output) const override;
  bool NeedsReference() const override { return options_.kl_coefficient > 0; }

 private:
  const ObjectiveOptions options_;
  const DdimScheduler& scheduler_;
};

}  // namespace ddpo
