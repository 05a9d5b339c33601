#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "common/nn/lora.h"
#include "common/nn/unet.h"
#include "common/tensors/safetensors.h"

namespace ddpo {

// A policy is one safetensors file, on the wire and in a run's folder: a LoRA, or all of a UNet's
// weights (IsUNetWeights).

// Makes `unet` draw with the policy. Returns the LoRA that goes with the UNet's own weights, which
// then stay as they are; nothing where the policy has replaced them: a LoRA that comes later is one
// of the new weights. INVALID_ARGUMENT, with nothing changed, names a tensor that does not fit. Not
// while another thread is in Forward.
absl::StatusOr<std::optional<LoraWeights>> ApplyPolicy(UNet& unet, SafetensorsContents policy);

// The same for a file, which errors name.
absl::StatusOr<std::optional<LoraWeights>> ApplyPolicyFile(UNet& unet, const std::string& path);

}  // namespace ddpo
