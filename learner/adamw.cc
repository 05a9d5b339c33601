#include "learner/adamw.h"

#include <torch/optim/adamw.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

constexpr char kStep[] = "step";
constexpr char kFirstMoment[] = "exp_avg.";
constexpr char kSecondMoment[] = "exp_avg_sq.";

std::vector<at::Tensor> Values(const NamedTensors& tensors) {
  std::vector<at::Tensor> values;
  values.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) values.push_back(tensor);
  return values;
}

torch::optim::AdamWOptions LibTorchOptions(const AdamWOptions& options) {
  return torch::optim::AdamWOptions(options.learning_rate)
      .betas({options.beta1, options.beta2})
      .eps(options.epsilon)
      .weight_decay(options.weight_decay);
}

std::string ShapeOf(const at::Tensor& tensor) {
  return absl::StrCat("[", absl::StrJoin(tensor.sizes(), ","), "]");
}

}  // namespace

struct AdamW::Impl {
  Impl(const NamedTensors& named, const AdamWOptions& options)
      : learning_rate(options.learning_rate),
        parameters(named),
        optimizer(Values(named), LibTorchOptions(options)) {}

  // The tensor's moments; null before the first step.
  torch::optim::AdamWParamState* StateOf(const at::Tensor& parameter) {
    const auto entry = optimizer.state().find(parameter.unsafeGetTensorImpl());
    if (entry == optimizer.state().end()) return nullptr;
    return static_cast<torch::optim::AdamWParamState*>(entry->second.get());
  }

  const double learning_rate;
  NamedTensors parameters;
  torch::optim::AdamW optimizer;
};

AdamW::AdamW(const NamedTensors& parameters, const AdamWOptions& options)
    : impl_(std::make_unique<Impl>(parameters, options)) {}

AdamW::~AdamW() = default;

void AdamW::Step(const NamedTensors& gradients, double learning_rate_factor) {
  for (torch::optim::OptimizerParamGroup& group : impl_->optimizer.param_groups()) {
    group.options().set_lr(impl_->learning_rate * learning_rate_factor);
  }
  for (auto& [name, parameter] : impl_->parameters) {
    parameter.mutable_grad() = gradients.at(name);
  }
  impl_->optimizer.step();
  for (auto& [name, parameter] : impl_->parameters) parameter.mutable_grad().reset();
}

int64_t AdamW::steps() const {
  const auto& state = impl_->optimizer.state();
  if (state.empty()) return 0;
  return static_cast<const torch::optim::AdamWParamState*>(state.begin()->second.get())->step();
}

NamedTensors AdamW::State() const {
  NamedTensors state;
  for (const auto& [name, parameter] : impl_->parameters) {
    const torch::optim::AdamWParamState* moments = impl_->StateOf(parameter);
    if (moments == nullptr) continue;
    state[kFirstMoment + name] = moments->exp_avg().clone();
    state[kSecondMoment + name] = moments->exp_avg_sq().clone();
    state[kStep] = at::full({1}, moments->step(), at::kLong);
  }
  return state;
}

absl::Status AdamW::Restore(const NamedTensors& state) {
  if (state.empty()) {
    impl_->optimizer.state().clear();
    return absl::OkStatus();
  }
  const auto find = [&state](const std::string& key,
                             at::IntArrayRef shape) -> absl::StatusOr<at::Tensor> {
    const auto entry = state.find(key);
    if (entry == state.end()) {
      return absl::InvalidArgumentError(absl::StrCat("optimizer state: no tensor ", key));
    }
    if (entry->second.sizes() != shape) {
      return absl::InvalidArgumentError(absl::StrCat("optimizer state: ", key, " has shape ",
                                                     ShapeOf(entry->second), ", expected [",
                                                     absl::StrJoin(shape, ","), "]"));
    }
    return entry->second;
  };
  DDPO_ASSIGN_OR_RETURN(const at::Tensor step, find(kStep, {1}));
  std::vector<std::pair<at::Tensor, std::unique_ptr<torch::optim::AdamWParamState>>> restored;
  for (const auto& [name, parameter] : impl_->parameters) {
    DDPO_ASSIGN_OR_RETURN(const at::Tensor first, find(kFirstMoment + name, parameter.sizes()));
    DDPO_ASSIGN_OR_RETURN(const at::Tensor second, find(kSecondMoment + name, parameter.sizes()));
    auto moments = std::make_unique<torch::optim::AdamWParamState>();
    moments->step(step.item<int64_t>());
    moments->exp_avg(first.to(parameter.options(), /*non_blocking=*/false, /*copy=*/true));
    moments->exp_avg_sq(second.to(parameter.options(), /*non_blocking=*/false, /*copy=*/true));
    restored.emplace_back(parameter, std::move(moments));
  }
  impl_->optimizer.state().clear();
  for (auto& [parameter, moments] : restored) {
    impl_->optimizer.state()[parameter.unsafeGetTensorImpl()] = std::move(moments);
  }
  return absl::OkStatus();
}

}  // namespace ddpo
