#include "learner/policy_gradient_epoch.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "learner/shuffle.h"

namespace ddpo {
namespace {

// [samples,J] from each sample's order of timesteps.
at::Tensor OrderTensor(const std::vector<std::vector<int64_t>>& orders) {
  std::vector<at::Tensor> rows;
  rows.reserve(orders.size());
  for (const std::vector<int64_t>& order : orders) rows.push_back(at::tensor(order, at::kLong));
  return at::stack(rows);
}

}  // namespace

absl::Status PolicyGradientPass(const Pipeline& pipeline, const EpochTensors& tensors,
                                const PassOrder& order, const PolicyGradientOptions& options,
                                int gradient_accumulation, GradientWorkers& workers,
                                TrainablePolicy& policy, EpochMetrics& metrics) {
  const int64_t count = order.samples.size(0);
  const int64_t minibatch = options.minibatch_size;
  const int64_t step_size = minibatch * gradient_accumulation;
  for (int64_t begin = 0; begin < count; begin += step_size) {
    const int64_t end = std::min(begin + step_size, count);
    const absl::StatusOr<StepMetrics> step = PolicyGradientStep(
        pipeline,
        tensors.Take(order.samples.slice(0, begin, end), order.timesteps.slice(0, begin, end)),
        options, workers, policy);
    if (!step.ok()) {
      return absl::Status(step.status().code(), absl::StrCat("optimizer step ", begin / step_size,
                                                             ": ", step.status().message()));
    }
    metrics.Add(*step, static_cast<double>((end - begin + minibatch - 1) / minibatch));
  }
  return absl::OkStatus();
}

absl::Status PolicyGradientEpoch::ComputeStartLogProbs(const EpochSamples& samples,
                                                       GradientWorkers& workers,
                                                       const TrainablePolicy& policy,
                                                       EpochTensors& tensors) const {
  tensors.start_log_probs = tensors.log_probs.clone();
  std::vector<int64_t> stale;
  for (size_t i = 0; i < samples.samples.size(); ++i) {
    if (samples.samples[i].policy_version != samples.epoch) {
      stale.push_back(static_cast<int64_t>(i));
    }
  }
  if (stale.empty()) return absl::OkStatus();
  const int64_t steps = options_.step.objective.num_steps - options_.skip_last_steps;
  // As many at a time as an optimizer step holds.
  const int64_t chunk =
      static_cast<int64_t>(options_.step.minibatch_size) * options_.gradient_accumulation;
  for (const at::Tensor& rows : at::tensor(stale, at::kLong).split(chunk)) {
    const at::Tensor order = at::arange(steps, at::kLong).expand({rows.size(0), steps});
    DDPO_ASSIGN_OR_RETURN(
        const at::Tensor log_probs,
        BatchLogProbs(pipeline_, tensors.Take(rows, order), options_.step, workers, policy.lora()));
    tensors.start_log_probs.slice(1, 0, steps)
        .index_copy_(0, rows.to(log_probs.device()), log_probs);
  }
  return absl::OkStatus();
}

absl::StatusOr<UpdateMetrics> PolicyGradientEpoch::Run(const EpochSamples& samples,
                                                       GradientWorkers& workers,
                                                       TrainablePolicy& policy) const {
  const int64_t num_steps = options_.step.objective.num_steps;
  DDPO_ASSIGN_OR_RETURN(EpochTensors tensors, EpochTensors::Create(pipeline_, num_steps, samples));
  if (options_.step.objective.decoupled) {
    DDPO_RETURN_IF_ERROR(ComputeStartLogProbs(samples, workers, policy, tensors));
  }
  const auto count = static_cast<int64_t>(samples.samples.size());
  EpochMetrics metrics;
  for (int inner = 0; inner < options_.inner_epochs; ++inner) {
    const ShuffleKey key{options_.run_seed, samples.epoch, inner, options_.rank};
    const PassOrder order{
        at::tensor(ShuffleSamples(key, count), at::kLong),
        OrderTensor(ShuffleTimesteps(key, count, num_steps - options_.skip_last_steps,
                                     options_.timestep_fraction))};
    const absl::Status status =
        PolicyGradientPass(pipeline_, tensors, order, options_.step, options_.gradient_accumulation,
                           workers, policy, metrics);
    if (!status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat("inner epoch ", inner, ", ", status.message()));
    }
  }
  UpdateMetrics mean = metrics.Mean();
  // The distance to a stale sample's policy is that of the updates since.
  const bool stale = std::any_of(
      samples.samples.begin(), samples.samples.end(),
      [&](const TrainingSample& sample) { return sample.policy_version != samples.epoch; });
  if (stale) mean.logprob_abs_diff_max = std::numeric_limits<double>::quiet_NaN();
  return mean;
}

}  // namespace ddpo
