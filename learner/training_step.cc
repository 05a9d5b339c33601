#include "learner/training_step.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "common/base/status_macros.h"
#include "learner/non_finite.h"

namespace ddpo {
namespace {

// One unit's share of the metrics.
StepMetrics Measure(const UnitLoss& loss, double share) {
  const at::NoGradGuard no_grad;
  StepMetrics metrics;
  metrics.loss = share * loss.loss.item<double>();
  metrics.clip_fraction = loss.clip_fraction;
  metrics.reference_kl = loss.reference_kl;
  if (!loss.log_ratio.defined()) return metrics;
  metrics.approx_kl = 0.5 * loss.log_ratio.square().mean().item<double>();
  metrics.ratio_mean = loss.log_ratio.exp().mean().item<double>();
  metrics.logprob_abs_diff_max = loss.log_ratio.abs().max().item<double>();
  return metrics;
}

StepMetrics Summarize(const std::vector<StepMetrics>& units) {
  StepMetrics total;
  const double share = 1.0 / static_cast<double>(std::max<size_t>(units.size(), 1));
  for (const StepMetrics& unit : units) {
    total.loss += unit.loss;
    total.approx_kl += share * unit.approx_kl;
    total.clip_fraction += share * unit.clip_fraction;
    total.ratio_mean += share * unit.ratio_mean;
    total.reference_kl += share * unit.reference_kl;
    total.logprob_abs_diff_max = std::max(total.logprob_abs_diff_max, unit.logprob_abs_diff_max);
  }
  return total;
}

at::Tensor ZeroGradient(const NamedTensors& parameters) {
  int64_t elements = 0;
  for (const auto& [key, tensor] : parameters) elements += tensor.numel();
  return at::zeros({elements}, parameters.begin()->second.options().requires_grad(false));
}

}  // namespace

absl::StatusOr<StepMetrics> TrainingStep(const Pipeline& pipeline, const Objective& objective,
                                         const StepUnits& units, const StepOptions& options,
                                         GradientWorkers& workers, TrainablePolicy& policy) {
  std::vector<StepMetrics> unit_metrics(units.count);
  const auto loss_of = [&](int64_t index) -> absl::StatusOr<at::Tensor> {
    TrainingUnit unit = units.get(index);
    if (objective.NeedsReference()) {
      const at::NoGradGuard no_grad;
      unit.reference_output =
          pipeline.PredictNoise(unit.latents, unit.timesteps, unit.uncond, unit.cond,
                                options.guidance_scale, /*lora=*/nullptr);
    }
    const at::Tensor model_output =
        pipeline.PredictNoise(unit.latents, unit.timesteps, unit.uncond, unit.cond,
                              options.guidance_scale, policy.lora(), options.detach_unconditional);
    const UnitLoss loss = objective.Loss(unit, model_output);
    const double share = units.share(index);
    unit_metrics[index] = Measure(loss, share);
    return loss.loss * share;
  };
  at::Tensor gradient;
  if (units.count == 0) {
    gradient = ZeroGradient(policy.parameters());
  } else {
    auto sum = workers.SumGradients(policy.parameters(),
                                    {.count = units.count, .loss = loss_of, .name = units.name});
    // The other ranks wait for this one's gradient. What is not a number reaches them all, so that
    // they fail for the same reason.
    if (IsNonFinite(sum.status()) && options.all_reduce) {
      at::Tensor nothing = ZeroGradient(policy.parameters()).fill_(NAN);
      (void)options.all_reduce(nothing);
    }
    DDPO_RETURN_IF_ERROR(sum.status());
    gradient = *std::move(sum);
  }
  if (options.all_reduce) DDPO_RETURN_IF_ERROR(options.all_reduce(gradient));
  StepMetrics metrics = Summarize(unit_metrics);
  DDPO_ASSIGN_OR_RETURN(metrics.grad_norm, policy.Step(gradient, options.max_grad_norm));
  return metrics;
}

}  // namespace ddpo
