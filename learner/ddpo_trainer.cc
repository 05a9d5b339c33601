#include "learner/ddpo_trainer.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <exception>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/nn/lora.h"
#include "common/tensors/safetensors.h"
#include "learner/epoch_tensors.h"
#include "learner/gradient_workers.h"
#include "learner/shuffle.h"

namespace ddpo {
namespace {

constexpr char kStateFormat[] = "ddpo_trainer_state.v1";
constexpr std::string_view kLoraPrefix = "lora.";
constexpr std::string_view kOptimizerPrefix = "optimizer.";

absl::Status CheckOptions(const DdpoTrainerOptions& options) {
  const std::pair<const char*, int> counts[] = {
      {"minibatch_size", options.step.minibatch_size},
      {"gradient_accumulation", options.gradient_accumulation},
      {"inner_epochs", options.inner_epochs},
      {"lora_rank", options.lora_rank},
      {"parallel_backwards", options.parallel_backwards},
  };
  for (const auto& [name, value] : counts) {
    if (value < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("trainer: ", name, " is ", value, ", expected at least 1"));
    }
  }
  if (!(options.timestep_fraction > 0 && options.timestep_fraction <= 1)) {
    return absl::InvalidArgumentError(absl::StrCat("trainer: timestep_fraction is ",
                                                   options.timestep_fraction,
                                                   ", expected more than 0 and at most 1"));
  }
  if (options.skip_last_steps < 0 || options.skip_last_steps >= options.step.objective.num_steps) {
    return absl::InvalidArgumentError(
        absl::StrCat("trainer: skip_last_steps is ", options.skip_last_steps, " of ",
                     options.step.objective.num_steps, " denoising steps"));
  }
  return absl::OkStatus();
}

// [samples.size(),J] from each sample's order of timesteps.
at::Tensor OrderTensor(const std::vector<std::vector<int64_t>>& orders) {
  std::vector<at::Tensor> rows;
  rows.reserve(orders.size());
  for (const std::vector<int64_t>& order : orders) rows.push_back(at::tensor(order, at::kLong));
  return at::stack(rows);
}

NamedTensors OnCpu(const NamedTensors& tensors) {
  NamedTensors copies;
  for (const auto& [key, tensor] : tensors) copies[key] = tensor.detach().to(at::kCPU).clone();
  return copies;
}

bool Equal(const NamedTensors& a, const NamedTensors& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.first == y.first && at::equal(x.second, y.second);
  });
}

// Averages of optimizer steps, each with the weight of its backward passes.
class EpochMetrics {
 public:
  void Add(const PolicyGradientMetrics& step, int64_t minibatches) {
    // Later steps compare with a policy that this epoch has changed already.
    if (total_.optimizer_steps == 0) total_.logprob_abs_diff_max = step.logprob_abs_diff_max;
    const auto weight = static_cast<double>(minibatches);
    weight_ += weight;
    total_.loss += weight * step.loss;
    total_.approx_kl += weight * step.approx_kl;
    total_.clip_fraction += weight * step.clip_fraction;
    total_.ratio_mean += weight * step.ratio_mean;
    total_.grad_norm += step.grad_norm;
    ++total_.optimizer_steps;
  }

  UpdateMetrics Mean() const {
    UpdateMetrics mean = total_;
    mean.loss /= weight_;
    mean.approx_kl /= weight_;
    mean.clip_fraction /= weight_;
    mean.ratio_mean /= weight_;
    mean.grad_norm /= static_cast<double>(mean.optimizer_steps);
    return mean;
  }

 private:
  UpdateMetrics total_;
  double weight_ = 0;
};

class DdpoTrainer : public PolicyTrainer {
 public:
  DdpoTrainer(const DdpoTrainerOptions& options, std::unique_ptr<const Pipeline> pipeline,
              LoraWeights lora)
      : options_(options),
        pipeline_(std::move(pipeline)),
        lora_(std::move(lora)),
        optimizer_(lora_.tensors, options.optimizer),
        workers_(options.parallel_backwards) {}

  absl::StatusOr<UpdateMetrics> TrainEpoch(absl::Span<const TrainingSample> samples,
                                           absl::Span<const double> advantages,
                                           int64_t epoch) override {
    if (samples.empty() || samples.size() != advantages.size()) {
      return absl::InvalidArgumentError(absl::StrCat("epoch ", epoch, ": ", samples.size(),
                                                     " samples and ", advantages.size(),
                                                     " advantages, expected as many of each"));
    }
    try {
      return Train(samples, advantages, epoch);
    } catch (const std::exception& error) {
      return absl::InternalError(absl::StrCat("epoch ", epoch, ": ", error.what()));
    }
  }

  absl::StatusOr<std::string> SerializePolicy() const override {
    LoraWeights policy = lora_;
    policy.tensors = OnCpu(lora_.tensors);
    for (const auto& [key, tensor] : policy.tensors) {
      if (!tensor.isfinite().all().item<bool>()) {
        return absl::InternalError(absl::StrCat("the policy's ", key, " is not finite"));
      }
    }
    return SerializeLora(policy);
  }

  absl::StatusOr<std::string> SerializeState() const override {
    NamedTensors state;
    for (const auto& [key, tensor] : OnCpu(lora_.tensors)) {
      state[std::string(kLoraPrefix).append(key)] = tensor;
    }
    for (const auto& [key, tensor] : OnCpu(optimizer_.State())) {
      state[std::string(kOptimizerPrefix).append(key)] = tensor;
    }
    return SerializeSafetensors(state, {{"format", kStateFormat}});
  }

  absl::Status RestoreState(const std::string& bytes) override {
    DDPO_ASSIGN_OR_RETURN(const SafetensorsContents contents, ParseSafetensors(bytes));
    const auto format = contents.metadata.find("format");
    if (format == contents.metadata.end() || format->second != kStateFormat) {
      return absl::InvalidArgumentError(
          absl::StrCat("trainer state: metadata `format` is not ", kStateFormat));
    }
    NamedTensors lora;
    NamedTensors optimizer;
    for (const auto& [key, tensor] : contents.tensors) {
      if (key.starts_with(kLoraPrefix)) {
        lora[key.substr(kLoraPrefix.size())] = tensor;
      } else if (key.starts_with(kOptimizerPrefix)) {
        optimizer[key.substr(kOptimizerPrefix.size())] = tensor;
      }
    }
    DDPO_ASSIGN_OR_RETURN(const LoraWeights restored,
                          LoraFromTensors(pipeline_->unet(), std::move(lora), lora_.alpha));
    if (restored.rank != lora_.rank) {
      return absl::InvalidArgumentError(
          absl::StrCat("trainer state: LoRA rank is ", restored.rank, ", expected ", lora_.rank));
    }
    DDPO_RETURN_IF_ERROR(optimizer_.Restore(optimizer));
    const at::NoGradGuard no_grad;
    // In place: the optimizer knows the tensors by identity.
    for (auto& [key, tensor] : lora_.tensors) tensor.copy_(restored.tensors.at(key));
    return absl::OkStatus();
  }

 private:
  absl::StatusOr<UpdateMetrics> Train(absl::Span<const TrainingSample> samples,
                                      absl::Span<const double> advantages, int64_t epoch) {
    const int64_t num_steps = options_.step.objective.num_steps;
    DDPO_ASSIGN_OR_RETURN(const EpochTensors tensors,
                          EpochTensors::Create(*pipeline_, num_steps, samples, advantages));
    const auto count = static_cast<int64_t>(samples.size());
    const int64_t minibatch = options_.step.minibatch_size;
    const int64_t step_size = minibatch * options_.gradient_accumulation;
    const NamedTensors before = OnCpu(lora_.tensors);
    EpochMetrics metrics;
    for (int inner = 0; inner < options_.inner_epochs; ++inner) {
      const ShuffleKey key{options_.run_seed, epoch, inner};
      const at::Tensor order = at::tensor(ShuffleSamples(key, count), at::kLong);
      const at::Tensor timestep_order = OrderTensor(ShuffleTimesteps(
          key, count, num_steps - options_.skip_last_steps, options_.timestep_fraction));
      for (int64_t begin = 0; begin < count; begin += step_size) {
        const int64_t end = std::min(begin + step_size, count);
        const at::Tensor taken = order.slice(0, begin, end);
        absl::StatusOr<PolicyGradientMetrics> step =
            PolicyGradientStep(*pipeline_, tensors.Take(taken, timestep_order.slice(0, begin, end)),
                               options_.step, workers_, lora_, optimizer_);
        if (!step.ok()) {
          return absl::Status(
              step.status().code(),
              absl::StrCat("epoch ", epoch, ", inner epoch ", inner, ", optimizer step ",
                           begin / step_size, ": ", step.status().message()));
        }
        metrics.Add(*step, (end - begin + minibatch - 1) / minibatch);
      }
    }
    UpdateMetrics result = metrics.Mean();
    result.weights_changed = !Equal(before, OnCpu(lora_.tensors));
    return result;
  }

  const DdpoTrainerOptions options_;
  const std::unique_ptr<const Pipeline> pipeline_;
  LoraWeights lora_;
  AdamW optimizer_;
  GradientWorkers workers_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PolicyTrainer>> CreateDdpoTrainer(
    const DdpoTrainerOptions& options, std::unique_ptr<const Pipeline> pipeline) {
  DDPO_RETURN_IF_ERROR(CheckOptions(options));
  // Finds an unknown objective now, not after the first epoch's sampling.
  DDPO_RETURN_IF_ERROR(CreateObjective(options.step.objective, pipeline->scheduler()).status());
  DDPO_RETURN_IF_ERROR(pipeline->scheduler().Timesteps(options.step.objective.num_steps).status());
  try {
    const double alpha = options.lora_alpha > 0 ? options.lora_alpha : options.lora_rank;
    LoraWeights lora = RandomLora(pipeline->unet(), options.lora_rank, alpha, options.run_seed);
    return std::make_unique<DdpoTrainer>(options, std::move(pipeline), std::move(lora));
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("trainer: ", error.what()));
  }
}

}  // namespace ddpo
