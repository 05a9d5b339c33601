#include "learner/ddpo_is.h"

#include "learner/policy_ratio.h"

namespace ddpo {

UnitLoss DdpoIsObjective::Loss(const TrainingUnit& unit, const at::Tensor& model_output) const {
  const PolicyRatio policy = ComputePolicyRatio(options_, scheduler_, unit, model_output);
  const at::Tensor clipped = policy.ratio.clamp(1 - options_.clip_range, 1 + options_.clip_range);
  UnitLoss result = policy.Report(options_);
  result.loss = at::maximum(-policy.advantages * policy.ratio, -policy.advantages * clipped).mean();
  return result;
}

}  // namespace ddpo
