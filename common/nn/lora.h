#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/tensors/safetensors.h"

namespace ddpo {

class UNet;

// The LoRA weights of a UNet: for each attention projection (to_q, to_k, to_v, to_out.0) a pair
// A [rank,in] and B [out,rank], float32 on the UNet's device, under PEFT's keys as
// `StableDiffusionPipeline.load_lora_weights` reads them:
//   unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight
// The layer's output gains scale · B A x, scale = alpha / rank.
struct LoraWeights {
  int rank = 0;
  double alpha = 0;
  NamedTensors tensors;

  double scale() const { return alpha / rank; }
};

// A ~ N(0, std 1/rank) from LibTorch's CPU generator at `seed`, in key order; B = 0.
LoraWeights RandomLora(const UNet& unet, int rank, double alpha, uint64_t seed);

// Checks that the tensors fit this UNet, key for key and shape for shape. INVALID_ARGUMENT names
// the key and both shapes. alpha: the argument or, where it is 0, `….to_q.alpha` tensors among the
// others (which must agree with each other and with the argument), default rank.
absl::StatusOr<LoraWeights> LoraFromTensors(const UNet& unet, NamedTensors tensors,
                                            double alpha = 0);

// The same for a safetensors file's contents, whose metadata may hold alpha: as `lora_alpha`, or
// as diffusers writes it, in the JSON of `lora_adapter_metadata` under `unet.lora_alpha`.
absl::StatusOr<LoraWeights> LoraFromContents(const UNet& unet, SafetensorsContents contents);

// A safetensors file that LoraFromContents and diffusers read, alpha included.
std::string SerializeLora(const LoraWeights& lora);

}  // namespace ddpo
