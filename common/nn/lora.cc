#include "common/nn/lora.h"

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/nn/unet.h"

namespace ddpo {
namespace {

constexpr char kAlphaKey[] = "lora_alpha";
// diffusers keeps peft's LoraConfig here, its keys prefixed with the network's name.
constexpr char kDiffusersKey[] = "lora_adapter_metadata";
constexpr char kAlphaSuffix[] = ".alpha";

std::string ShapeOf(at::IntArrayRef sizes) {
  return absl::StrCat("[", absl::StrJoin(sizes, ","), "]");
}

// Takes the `….alpha` tensors out of `tensors` and returns their one value, 0 if there are none.
absl::StatusOr<double> TakeAlphaTensors(const UNet& unet, NamedTensors* tensors) {
  double alpha = 0;
  for (const UNet::LoraTarget& target : unet.lora_targets()) {
    const auto found = tensors->find(absl::StrCat(target.prefix, kAlphaSuffix));
    if (found == tensors->end()) continue;
    if (found->second.numel() != 1) {
      return absl::InvalidArgumentError(absl::StrCat("LoRA tensor ", found->first, " has shape ",
                                                     ShapeOf(found->second.sizes()),
                                                     ", expected a single number"));
    }
    const double value = found->second.to(at::kDouble).item<double>();
    if (alpha != 0 && value != alpha) {
      return absl::InvalidArgumentError(absl::StrCat("LoRA tensor ", found->first, " is ", value,
                                                     ", other layers have alpha ", alpha,
                                                     "; expected one alpha for all"));
    }
    alpha = value;
    tensors->erase(found);
  }
  return alpha;
}

absl::StatusOr<double> AlphaFromMetadata(const std::map<std::string, std::string>& metadata) {
  if (const auto found = metadata.find(kAlphaKey); found != metadata.end()) {
    double alpha;
    if (absl::SimpleAtod(found->second, &alpha)) return alpha;
    return absl::InvalidArgumentError(
        absl::StrCat("LoRA metadata ", kAlphaKey, " is '", found->second, "', expected a number"));
  }
  if (const auto found = metadata.find(kDiffusersKey); found != metadata.end()) {
    const auto json = nlohmann::json::parse(found->second, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) {
      return absl::InvalidArgumentError(
          absl::StrCat("LoRA metadata ", kDiffusersKey, " is not a JSON object"));
    }
    const auto alpha = json.find("unet.lora_alpha");
    if (alpha == json.end()) return 0;
    if (!alpha->is_number()) {
      return absl::InvalidArgumentError(absl::StrCat("LoRA metadata ", kDiffusersKey,
                                                     " has unet.lora_alpha ", alpha->dump(),
                                                     ", expected a number"));
    }
    return alpha->get<double>();
  }
  return 0;
}

}  // namespace

LoraWeights RandomLora(const UNet& unet, int rank, double alpha, uint64_t seed) {
  const at::Generator generator = at::detail::createCPUGenerator(seed);
  LoraWeights lora{.rank = rank, .alpha = alpha, .tensors = {}};
  for (const UNet::LoraTarget& target : unet.lora_targets()) {
    const at::Tensor a =
        at::randn({rank, target.in_features}, generator, at::TensorOptions(at::kFloat));
    lora.tensors[absl::StrCat(target.prefix, ".lora_A.weight")] = a.div(rank).to(unet.device());
    lora.tensors[absl::StrCat(target.prefix, ".lora_B.weight")] =
        at::zeros({target.out_features, rank}, at::TensorOptions(at::kFloat).device(unet.device()));
  }
  return lora;
}

absl::StatusOr<LoraWeights> LoraFromTensors(const UNet& unet, NamedTensors tensors, double alpha) {
  DDPO_ASSIGN_OR_RETURN(const double tensor_alpha, TakeAlphaTensors(unet, &tensors));
  if (alpha != 0 && tensor_alpha != 0 && alpha != tensor_alpha) {
    return absl::InvalidArgumentError(
        absl::StrCat("LoRA alpha is ", alpha, ", but the .alpha tensors say ", tensor_alpha));
  }
  if (alpha == 0) alpha = tensor_alpha;
  if (!std::isfinite(alpha) || alpha < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("LoRA alpha is ", alpha, ", expected a positive number"));
  }

  LoraWeights lora;
  for (const UNet::LoraTarget& target : unet.lora_targets()) {
    for (const bool is_a : {true, false}) {
      const std::string key =
          absl::StrCat(target.prefix, is_a ? ".lora_A.weight" : ".lora_B.weight");
      const auto found = tensors.find(key);
      if (found == tensors.end()) {
        return absl::InvalidArgumentError(absl::StrCat("LoRA tensor ", key, " is missing"));
      }
      const at::Tensor& tensor = found->second;
      if (lora.rank == 0 && tensor.dim() == 2) lora.rank = static_cast<int>(tensor.size(0));
      const std::vector<int64_t> expected =
          is_a ? std::vector<int64_t>{lora.rank, target.in_features}
               : std::vector<int64_t>{target.out_features, lora.rank};
      if (lora.rank == 0 || tensor.sizes() != expected) {
        return absl::InvalidArgumentError(
            absl::StrCat("LoRA tensor ", key, " has shape ", ShapeOf(tensor.sizes()), ", expected ",
                         is_a && lora.rank == 0 ? absl::StrCat("[rank,", target.in_features, "]")
                                                : ShapeOf(expected)));
      }
      if (!tensor.is_floating_point()) {
        return absl::InvalidArgumentError(absl::StrCat("LoRA tensor ", key, " has dtype ",
                                                       at::toString(tensor.scalar_type()),
                                                       ", expected a floating-point type"));
      }
      lora.tensors[key] = tensor.to(unet.device(), at::kFloat).contiguous();
      tensors.erase(found);
    }
  }
  if (!tensors.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("LoRA tensor ", tensors.begin()->first,
                     " is unknown: this UNet has no such projection; expected to_q, to_k, to_v and "
                     "to_out.0 of its attentions"));
  }
  lora.alpha = alpha == 0 ? lora.rank : alpha;
  return lora;
}

absl::StatusOr<LoraWeights> LoraFromContents(const UNet& unet, SafetensorsContents contents) {
  DDPO_ASSIGN_OR_RETURN(const double alpha, AlphaFromMetadata(contents.metadata));
  return LoraFromTensors(unet, std::move(contents.tensors), alpha);
}

std::string SerializeLora(const LoraWeights& lora) {
  // diffusers takes this for the whole of peft's LoraConfig, so it has every key that it looks up.
  nlohmann::json config = {{"unet.r", lora.rank},
                           {"unet.rank_pattern", nlohmann::json::object()},
                           {"unet.alpha_pattern", nlohmann::json::object()},
                           {"unet.target_modules", {"to_q", "to_k", "to_v", "to_out.0"}}};
  if (lora.alpha == std::round(lora.alpha)) {
    config["unet.lora_alpha"] = static_cast<int64_t>(lora.alpha);
  } else {
    config["unet.lora_alpha"] = lora.alpha;
  }
  NamedTensors tensors;
  for (const auto& [key, tensor] : lora.tensors) tensors[key] = tensor.detach().to(at::kCPU);
  return SerializeSafetensors(tensors, {{"format", "pt"}, {kDiffusersKey, config.dump()}});
}

}  // namespace ddpo
