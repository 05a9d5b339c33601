#include "learner/policy_ratio.h"

namespace ddpo {
namespace {

// KL of two Gaussians of the same σ, (μ − μ_ref)² / 2σ², averaged over a sample's elements as its
// log-probability is (DPOK, arXiv 2305.16381) -> [B]. 0 where σ is: nothing is chosen.
at::Tensor StepDivergence(const ObjectiveOptions& options, const DdimScheduler& scheduler,
                          const TrainingUnit& unit, const at::Tensor& model_output) {
  const auto step = [&](const at::Tensor& output) {
    return scheduler.Predict(unit.latents, output, unit.timesteps, options.num_steps, options.eta);
  };
  const auto policy = step(model_output);
  const at::Tensor has_width = policy.std > 0;
  const at::Tensor std = at::where(has_width, policy.std, 1.0);
  const at::Tensor divergence =
      ((policy.mean - step(unit.reference_output).mean).square() / (2 * std.square()))
          .mean({1, 2, 3});
  return at::where(has_width.view({-1}), divergence, 0.0);
}

}  // namespace

PolicyRatio ComputePolicyRatio(const ObjectiveOptions& options, const DdimScheduler& scheduler,
                               const TrainingUnit& unit, const at::Tensor& model_output) {
  PolicyRatio policy;
  policy.log_prob = scheduler.LogProb(unit.latents, model_output, unit.timesteps, options.num_steps,
                                      options.eta, unit.target);
  policy.log_ratio = policy.log_prob - unit.log_probs;
  policy.ratio = policy.log_ratio.exp();
  policy.advantages = unit.weights.clamp(-options.adv_clip, options.adv_clip);
  if (options.kl_coefficient > 0) {
    policy.reference_kl = StepDivergence(options, scheduler, unit, model_output);
  }
  return policy;
}

UnitLoss PolicyRatio::Report(const ObjectiveOptions& options, const at::Tensor& loss,
                             const at::Tensor& clipped_ratio) const {
  UnitLoss result;
  result.loss = loss;
  result.log_ratio = log_ratio.detach();
  const at::Tensor left = (clipped_ratio.detach() - 1).abs() > options.clip_range;
  result.clip_fraction = left.to(at::kFloat).mean().item<double>();
  if (reference_kl.defined()) {
    result.loss = loss + options.kl_coefficient * reference_kl.mean();
    result.reference_kl = reference_kl.detach().mean().item<double>();
  }
  return result;
}

}  // namespace ddpo
