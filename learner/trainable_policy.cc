#include "learner/trainable_policy.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "learner/non_finite.h"

namespace ddpo {
namespace {

constexpr std::string_view kWeights = "weights.";
constexpr std::string_view kOptimizer = "optimizer.";
constexpr std::string_view kAverage = "average.";

LoraWeights WithGradients(LoraWeights lora) {
  for (auto& [key, tensor] : lora.tensors) tensor.requires_grad_(true);
  return lora;
}

NamedTensors OnCpu(const NamedTensors& tensors) {
  NamedTensors copies;
  for (const auto& [key, tensor] : tensors) copies[key] = tensor.detach().to(at::kCPU).clone();
  return copies;
}

// The inverse of the flattening: views of `flat` in the tensors' shapes.
NamedTensors Split(const at::Tensor& flat, const NamedTensors& tensors) {
  NamedTensors split;
  int64_t offset = 0;
  for (const auto& [key, tensor] : tensors) {
    split[key] = flat.slice(0, offset, offset + tensor.numel()).view(tensor.sizes());
    offset += tensor.numel();
  }
  return split;
}

// The tensors of `state` whose keys begin so, without that prefix.
NamedTensors Part(const NamedTensors& state, std::string_view prefix) {
  NamedTensors part;
  for (const auto& [key, tensor] : state) {
    if (key.starts_with(prefix)) part[key.substr(prefix.size())] = tensor;
  }
  return part;
}

absl::Status CheckFits(std::string_view what, const NamedTensors& found,
                       const NamedTensors& expected) {
  for (const auto& [key, tensor] : expected) {
    const auto entry = found.find(key);
    if (entry == found.end() || entry->second.sizes() != tensor.sizes()) {
      const std::string shape =
          entry == found.end()
              ? "is missing"
              : absl::StrCat("has shape [", absl::StrJoin(entry->second.sizes(), ","), "]");
      return absl::InvalidArgumentError(absl::StrCat("trainer state: ", std::string(what), key, " ",
                                                     shape, ", expected [",
                                                     absl::StrJoin(tensor.sizes(), ","), "]"));
    }
  }
  if (found.size() != expected.size()) {
    return absl::InvalidArgumentError(absl::StrCat("trainer state: ", found.size(), " tensors ",
                                                   std::string(what), "*, expected ",
                                                   expected.size()));
  }
  return absl::OkStatus();
}

void CopyInto(const NamedTensors& source, const NamedTensors& target) {
  const at::NoGradGuard no_grad;
  for (const auto& [key, tensor] : target) at::Tensor(tensor).copy_(source.at(key));
}

}  // namespace

TrainablePolicy::TrainablePolicy(LoraWeights lora, const PolicyOptions& options)
    : TrainablePolicy(WithGradients(std::move(lora)), nullptr, {}, options) {}

TrainablePolicy::TrainablePolicy(UNet& unet, const PolicyOptions& options)
    : TrainablePolicy(std::nullopt, &unet, unet.MakeTrainable(), options) {}

TrainablePolicy::TrainablePolicy(std::optional<LoraWeights> lora, const UNet* unet,
                                 NamedTensors parameters, const PolicyOptions& options)
    : options_(options),
      lora_(std::move(lora)),
      unet_(unet),
      parameters_(lora_.has_value() ? lora_->tensors : std::move(parameters)),
      optimizer_(parameters_, options.optimizer) {
  if (options.ema_decay > 0) {
    for (const auto& [key, tensor] : parameters_) average_[key] = tensor.detach().clone();
  }
}

absl::StatusOr<double> TrainablePolicy::Step(at::Tensor& gradient, double max_grad_norm) {
  const at::NoGradGuard no_grad;
  const double norm = gradient.to(at::kDouble).norm().item<double>();
  if (!std::isfinite(norm)) {
    return NonFiniteError(absl::StrCat("the gradient's norm is ", norm));
  }
  gradient.mul_(std::min(1.0, max_grad_norm / (norm + 1e-6)));
  const auto step = static_cast<double>(optimizer_.steps() + 1);
  const double warmup =
      options_.warmup_steps > 0 ? std::min(1.0, step / options_.warmup_steps) : 1.0;
  optimizer_.Step(Split(gradient, parameters_), warmup);
  for (auto& [key, tensor] : average_) {
    tensor.mul_(options_.ema_decay).add_(parameters_.at(key), 1 - options_.ema_decay);
  }
  return norm;
}

absl::StatusOr<std::string> TrainablePolicy::Serialize(const NamedTensors& parameters) const {
  const NamedTensors tensors = OnCpu(unet_ == nullptr ? parameters : unet_->Weights(parameters));
  for (const auto& [key, tensor] : tensors) {
    if (!tensor.isfinite().all().item<bool>()) {
      return NonFiniteError(absl::StrCat("the policy's ", key, " is not finite"));
    }
  }
  if (unet_ != nullptr) return SerializeUNetWeights(tensors);
  return SerializeLora({.rank = lora_->rank, .alpha = lora_->alpha, .tensors = tensors});
}

absl::StatusOr<std::string> TrainablePolicy::SerializePolicy() const {
  return Serialize(parameters_);
}

absl::StatusOr<std::string> TrainablePolicy::SerializeFinalPolicy() const {
  return Serialize(average_.empty() ? parameters_ : average_);
}

std::string TrainablePolicy::SerializeState(
    const std::map<std::string, std::string>& metadata) const {
  NamedTensors state;
  const auto add = [&state](std::string_view prefix, const NamedTensors& tensors) {
    for (const auto& [key, tensor] : tensors) {
      state[std::string(prefix).append(key)] = tensor.detach().to(at::kCPU);
    }
  };
  add(kWeights, parameters_);
  add(kOptimizer, optimizer_.State());
  add(kAverage, average_);
  return SerializeSafetensors(state, metadata);
}

absl::Status TrainablePolicy::RestoreState(const NamedTensors& state) {
  const NamedTensors weights = Part(state, kWeights);
  const NamedTensors average = Part(state, kAverage);
  DDPO_RETURN_IF_ERROR(CheckFits(kWeights, weights, parameters_));
  DDPO_RETURN_IF_ERROR(CheckFits(kAverage, average, average_));
  DDPO_RETURN_IF_ERROR(optimizer_.Restore(Part(state, kOptimizer)));
  // In place: the optimizer and the UNet know the tensors by identity.
  CopyInto(weights, parameters_);
  CopyInto(average, average_);
  return absl::OkStatus();
}

NamedTensors TrainablePolicy::Copy() const { return OnCpu(parameters_); }

}  // namespace ddpo
