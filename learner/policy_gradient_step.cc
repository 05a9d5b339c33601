#include "learner/policy_gradient_step.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

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

absl::Status CheckBatch(const PolicyBatch& batch, const ObjectiveOptions& objective,
                        int minibatch_size) {
  const int64_t num_steps = objective.num_steps;
  if (minibatch_size < 1) {
    return absl::InvalidArgumentError(absl::StrCat("policy gradient step: minibatch_size is ",
                                                   minibatch_size, ", expected at least 1"));
  }
  if (batch.latents.empty() || batch.latents[0].dim() != 4) {
    return absl::InvalidArgumentError(
        "policy gradient step: latents are not of one or more samples, [T+1,C,h,w] each");
  }
  const auto samples = static_cast<int64_t>(batch.latents.size());
  std::vector<int64_t> shape = batch.latents[0].sizes().vec();
  shape[0] = num_steps + 1;
  for (const at::Tensor& latents : batch.latents) {
    DDPO_RETURN_IF_ERROR(CheckShape("latents", latents, shape));
  }
  DDPO_RETURN_IF_ERROR(CheckShape("log_probs", batch.log_probs, {samples, num_steps}));
  if (objective.decoupled) {
    DDPO_RETURN_IF_ERROR(
        CheckShape("start_log_probs", batch.start_log_probs, {samples, num_steps}));
  }
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
        samples_(static_cast<int64_t>(batch.latents.size())),
        timesteps_(at::tensor(timesteps, at::kLong)) {}

  int64_t count() const { return (samples_ + minibatch_size_ - 1) / minibatch_size_ * columns_; }

  std::string Name(int64_t unit) const {
    return absl::StrCat("minibatch ", unit / columns_, " (samples ", Begin(unit), " … ",
                        End(unit) - 1, "), timestep column ", unit % columns_);
  }

  // The unit's part of values [B,J].
  at::Tensor Rows(const at::Tensor& values, int64_t unit) const {
    return values.slice(0, Begin(unit), End(unit)).select(1, unit % columns_);
  }

  TrainingUnit Get(int64_t unit) const {
    const auto rows = [&](const at::Tensor& tensor) {
      return tensor.slice(0, Begin(unit), End(unit));
    };
    const at::Tensor steps = Rows(batch_.timestep_order, unit);
    const at::Device device = batch_.cond.device();
    const at::Tensor row = at::arange(End(unit) - Begin(unit), at::kLong).to(device);
    const at::Tensor step = steps.to(device);
    std::vector<at::Tensor> latents, targets;
    for (int64_t i = 0; i < steps.size(0); ++i) {
      const at::Tensor& trajectory = batch_.latents[Begin(unit) + i];
      const auto at_step = steps[i].item<int64_t>();
      latents.push_back(trajectory[at_step]);
      targets.push_back(trajectory[at_step + 1]);
    }
    TrainingUnit result;
    result.latents = at::stack(latents).to(device);
    result.target = at::stack(targets).to(device);
    result.log_probs = rows(batch_.log_probs).index({row, step});
    if (batch_.start_log_probs.defined()) {
      result.start_log_probs = rows(batch_.start_log_probs).index({row, step});
    }
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

}  // namespace

absl::StatusOr<StepMetrics> PolicyGradientStep(const Pipeline& pipeline, const PolicyBatch& batch,
                                               const PolicyGradientOptions& options,
                                               GradientWorkers& workers, TrainablePolicy& policy) {
  DDPO_RETURN_IF_ERROR(CheckBatch(batch, options.objective, options.minibatch_size));
  DDPO_ASSIGN_OR_RETURN(const std::vector<int64_t> timesteps,
                        pipeline.scheduler().Timesteps(options.objective.num_steps));
  DDPO_ASSIGN_OR_RETURN(const std::unique_ptr<Objective> objective,
                        CreateObjective(options.objective, pipeline.scheduler()));
  const BatchUnits batch_units(batch, options.minibatch_size, timesteps);
  StepUnits units;
  units.count = batch_units.count();
  units.get = [&](int64_t unit) { return batch_units.Get(unit); };
  units.share = [&](int64_t) { return 1.0 / static_cast<double>(batch_units.count()); };
  units.name = [&](int64_t unit) { return batch_units.Name(unit); };
  return TrainingStep(pipeline, *objective, units, options, workers, policy);
}

absl::StatusOr<at::Tensor> BatchLogProbs(const Pipeline& pipeline, const PolicyBatch& batch,
                                         const PolicyGradientOptions& options,
                                         GradientWorkers& workers, const LoraWeights* lora) {
  ObjectiveOptions objective = options.objective;
  objective.decoupled = false;
  DDPO_RETURN_IF_ERROR(CheckBatch(batch, objective, options.minibatch_size));
  DDPO_ASSIGN_OR_RETURN(const std::vector<int64_t> timesteps,
                        pipeline.scheduler().Timesteps(objective.num_steps));
  const BatchUnits units(batch, options.minibatch_size, timesteps);
  at::Tensor log_probs = at::empty_like(batch.timestep_order, batch.log_probs.options());
  DDPO_RETURN_IF_ERROR(workers.ForEach(units.count(), [&](int64_t index) {
    const TrainingUnit unit = units.Get(index);
    const at::Tensor model_output = pipeline.PredictNoise(unit.latents, unit.timesteps, unit.uncond,
                                                          unit.cond, options.guidance_scale, lora);
    units.Rows(log_probs, index)
        .copy_(pipeline.scheduler().LogProb(unit.latents, model_output, unit.timesteps,
                                            objective.num_steps, objective.eta, unit.target));
    return absl::OkStatus();
  }));
  return log_probs;
}

}  // namespace ddpo
