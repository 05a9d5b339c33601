#include "common/nn/policy.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace ddpo {

absl::StatusOr<std::optional<LoraWeights>> ApplyPolicy(UNet& unet, SafetensorsContents policy) {
  if (IsUNetWeights(policy)) {
    DDPO_RETURN_IF_ERROR(unet.SetWeights(std::move(policy.tensors)));
    return std::nullopt;
  }
  DDPO_ASSIGN_OR_RETURN(LoraWeights lora, LoraFromContents(unet, std::move(policy)));
  return lora;
}

absl::StatusOr<std::optional<LoraWeights>> ApplyPolicyFile(UNet& unet, const std::string& path) {
  DDPO_ASSIGN_OR_RETURN(SafetensorsContents contents, ReadSafetensors(path));
  absl::StatusOr<std::optional<LoraWeights>> lora = ApplyPolicy(unet, std::move(contents));
  if (!lora.ok()) {
    return absl::Status(lora.status().code(), absl::StrCat(path, ": ", lora.status().message()));
  }
  return lora;
}

}  // namespace ddpo
