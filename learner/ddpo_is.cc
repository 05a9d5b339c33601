#include "learner/ddpo_is.h"

#include "learner/policy_ratio.h"

namespace ddpo {

UnitLoss DdpoIsObjective::Loss(const TrainingUnit& unit, const at::Tensor& model_output) const {
  const PolicyRatio policy = ComputePolicyRatio(options_, scheduler_, unit, model_output);
  at::Tensor ratio = policy.ratio;
  at::Tensor advantages = policy.advantages;
  if (options_.decoupled) {
    ratio = (policy.log_prob - unit.start_log_probs).exp();
    const at::Tensor weight =
        (unit.start_log_probs - unit.log_probs).exp().clamp_max(options_.max_behaviour_weight);
    advantages = advantages * weight;
  }
  const at::Tensor clipped = ratio.clamp(1 - options_.clip_range, 1 + options_.clip_range);
  const at::Tensor loss = at::maximum(-advantages * ratio, -advantages * clipped).mean();
  return policy.Report(options_, loss, ratio);
}

}  // namespace ddpo
