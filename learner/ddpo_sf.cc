#include "learner/ddpo_sf.h"

#include "learner/policy_ratio.h"

namespace ddpo {

UnitLoss DdpoSfObjective::Loss(const TrainingUnit& unit, const at::Tensor& model_output) const {
  const PolicyRatio policy = ComputePolicyRatio(options_, scheduler_, unit, model_output);
  return policy.Report(options_, (-policy.advantages * policy.log_prob).mean(), policy.ratio);
}

}  // namespace ddpo
