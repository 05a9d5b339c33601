#include "learner/policy_gradient_step.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

absl::Status CheckShape(const char* name, const at::Tensor& tensor,
                        const std::vector<int64_t>& expected) {
  if (tensor.defined() && tensor.sizes() == at::IntArrayRef(expected)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("policy gradient step: ", name, " has shape [",
                   tensor.defined() ? absl::StrJoin(tensor.sizes(), ",") : "undefined",
                   "], expected [", absl::StrJoin(expected, ","), "]"));
}

absl::Status CheckBatch(const PolicyBatch& batch, int64_t num_steps, int minibatch_size) {
  if (minibatch_size < 1) {
    return absl::InvalidArgumentError(absl::StrCat("policy gradient step: minibatch_size is ",
                                                   minibatch_size, ", expected at least 1"));
  }
  if (!batch.latents.defined() || batch.latents.dim() != 5 || batch.latents.size(0) < 1) {
    return absl::InvalidArgumentError(
        "policy gradient step: latents are not [B,T+1,C,h,w] with at least one sample");
  }
  const int64_t samples = batch.latents.size(0);
  std::vector<int64_t> latents = batch.latents.sizes().vec();
  latents[1] = num_steps + 1;
  DDPO_RETURN_IF_ERROR(CheckShape("latents", batch.latents, latents));
  DDPO_RETURN_IF_ERROR(CheckShape("log_probs", batch.log_probs, {samples, num_steps}));
  DDPO_RETURN_IF_ERROR(CheckShape("advantages", batch.advantages, {samples}));
  if (!batch.timestep_order.defined() || batch.timestep_order.dim() != 2 ||
      batch.timestep_order.size(0) != samples || batch.timestep_order.size(1) < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("policy gradient step: timestep_order is not [", samples, ",J]"));
  }
  const auto low = batch.timestep_order.min().item<int64_t>();
  const auto high = batch.timestep_order.max().item<int64_t>();
  if (low < 0 || high >= num_steps) {
    return absl::InvalidArgumentError(
        absl::StrCat("policy gradient step: timestep_order holds steps ", low, " … ", high,
                     ", expected 0 … ", num_steps - 1));
  }
  return absl::OkStatus();
}

// The forward and backward passes of one optimizer step: each minibatch at each column.
class BatchUnits {
 public:
  BatchUnits(const PolicyBatch& batch, int minibatch_size, const std::vector<int64_t>& timesteps)
      : batch_(batch),
        minibatch_size_(minibatch_size),
        columns_(batch.timestep_order.size(1)),
        samples_(batch.latents.size(0)),
        timesteps_(at::tensor(timesteps, at::kLong)) {}

  int64_t count() const { return (samples_ + minibatch_size_ - 1) / minibatch_size_ * columns_; }

  std::string Name(int64_t unit) const {
    return absl::StrCat("minibatch ", unit / columns_, " (samples ", Begin(unit), " … ",
                        End(unit) - 1, "), timestep column ", unit % columns_);
  }

  TrainingUnit Get(int64_t unit) const {
    const auto rows = [&](const at::Tensor& tensor) {
      return tensor.slice(0, Begin(unit), End(unit));
    };
    const at::Tensor steps = rows(batch_.timestep_order).select(1, unit % columns_);
    const at::Device device = batch_.latents.device();
    const at::Tensor row = at::arange(End(unit) - Begin(unit), at::kLong).to(device);
    const at::Tensor step = steps.to(device);
    const at::Tensor latents = rows(batch_.latents);
    TrainingUnit result;
    result.latents = latents.index({row, step});
    result.target = latents.index({row, step + 1});
    result.log_probs = rows(batch_.log_probs).index({row, step});
    result.weights = rows(batch_.advantages);
    result.cond = rows(batch_.cond);
    result.uncond = batch_.uncond.expand_as(result.cond);
    result.timesteps = timesteps_.index_select(0, steps).to(device);
    return result;
  }

 private:
  int64_t Begin(int64_t unit) const { return unit / columns_ * minibatch_size_; }
  int64_t End(int64_t unit) const { return std::min(Begin(unit) + minibatch_size_, samples_); }

  const PolicyBatch& batch_;
  const int64_t minibatch_size_;
  const int64_t columns_;
  const int64_t samples_;
  const at::Tensor timesteps_;
};

// One unit's share of the metrics.
struct UnitMetrics {
  double loss = 0;
  double approx_kl = 0;
  double clip_fraction = 0;
  double ratio_mean = 0;
  double logprob_abs_diff_max = 0;
};

UnitMetrics Measure(const UnitLoss& loss) {
  const at::NoGradGuard no_grad;
  UnitMetrics metrics;
  metrics.loss = loss.loss.item<double>();
  metrics.approx_kl = 0.5 * loss.log_ratio.square().mean().item<double>();
  metrics.clip_fraction = loss.clip_fraction;
  metrics.ratio_mean = loss.log_ratio.exp().mean().item<double>();
  metrics.logprob_abs_diff_max = loss.log_ratio.abs().max().item<double>();
  return metrics;
}

PolicyGradientMetrics Summarize(const std::vector<UnitMetrics>& units) {
  PolicyGradientMetrics total;
  const double share = 1.0 / static_cast<double>(units.size());
  for (const UnitMetrics& unit : units) {
    total.loss += share * unit.loss;
    total.approx_kl += share * unit.approx_kl;
    total.clip_fraction += share * unit.clip_fraction;
    total.ratio_mean += share * unit.ratio_mean;
    total.logprob_abs_diff_max = std::max(total.logprob_abs_diff_max, unit.logprob_abs_diff_max);
  }
  return total;
}

// The inverse of the flattening: views of `gradient` in the LoRA tensors' shapes.
NamedTensors SplitGradient(const at::Tensor& gradient, const NamedTensors& tensors) {
  NamedTensors split;
  int64_t offset = 0;
  for (const auto& [key, tensor] : tensors) {
    split[key] = gradient.slice(0, offset, offset + tensor.numel()).view(tensor.sizes());
    offset += tensor.numel();
  }
  return split;
}

}  // namespace

absl::StatusOr<PolicyGradientMetrics> PolicyGradientStep(
    const Pipeline& pipeline, const PolicyBatch& batch, const PolicyGradientOptions& options,
    GradientWorkers& workers, const LoraWeights& lora, AdamW& optimizer) {
  DDPO_RETURN_IF_ERROR(CheckBatch(batch, options.objective.num_steps, options.minibatch_size));
  DDPO_ASSIGN_OR_RETURN(const std::vector<int64_t> timesteps,
                        pipeline.scheduler().Timesteps(options.objective.num_steps));
  DDPO_ASSIGN_OR_RETURN(const std::unique_ptr<Objective> objective,
                        CreateObjective(options.objective, pipeline.scheduler()));

  const BatchUnits batch_units(batch, options.minibatch_size, timesteps);
  std::vector<UnitMetrics> unit_metrics(batch_units.count());
  GradientWorkers::Units units;
  units.count = batch_units.count();
  units.name = [&](int64_t unit) { return batch_units.Name(unit); };
  units.loss = [&](int64_t unit, const LoraWeights& leaves) -> absl::StatusOr<at::Tensor> {
    const TrainingUnit inputs = batch_units.Get(unit);
    const at::Tensor model_output =
        pipeline.PredictNoise(inputs.latents, inputs.timesteps, inputs.uncond, inputs.cond,
                              options.guidance_scale, &leaves);
    const UnitLoss loss = objective->Loss(inputs, model_output);
    unit_metrics[unit] = Measure(loss);
    return loss.loss / units.count;
  };
  DDPO_ASSIGN_OR_RETURN(at::Tensor gradient, workers.SumGradients(lora, units));
  if (options.all_reduce) DDPO_RETURN_IF_ERROR(options.all_reduce(gradient));

  const at::NoGradGuard no_grad;
  PolicyGradientMetrics metrics = Summarize(unit_metrics);
  metrics.grad_norm = gradient.to(at::kDouble).norm().item<double>();
  if (!std::isfinite(metrics.grad_norm)) {
    return absl::InternalError(absl::StrCat("the gradient's norm over all ", units.count,
                                            " backward passes is ", metrics.grad_norm));
  }
  // As torch.nn.utils.clip_grad_norm_.
  const double scale = std::min(1.0, options.max_grad_norm / (metrics.grad_norm + 1e-6));
  gradient.mul_(scale);
  optimizer.Step(SplitGradient(gradient, lora.tensors));
  return metrics;
}

}  // namespace ddpo
