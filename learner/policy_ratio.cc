#include "learner/policy_ratio.h"

namespace ddpo {

PolicyRatio ComputePolicyRatio(const ObjectiveOptions& options, const DdimScheduler& scheduler,
                               const TrainingUnit& unit, const at::Tensor& model_output) {
  PolicyRatio policy;
  policy.log_prob = scheduler.LogProb(unit.latents, model_output, unit.timesteps, options.num_steps,
                                      options.eta, unit.target);
  policy.log_ratio = policy.log_prob - unit.log_probs;
  policy.ratio = policy.log_ratio.exp();
  policy.advantages = unit.weights.clamp(-options.adv_clip, options.adv_clip);
  return policy;
}

UnitLoss PolicyRatio::Report(const ObjectiveOptions& options) const {
  UnitLoss result;
  result.log_ratio = log_ratio.detach();
  const at::Tensor left = (ratio.detach() - 1).abs() > options.clip_range;
  result.clip_fraction = left.to(at::kFloat).mean().item<double>();
  return result;
}

}  // namespace ddpo
