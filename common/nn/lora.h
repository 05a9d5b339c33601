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
// A [rank,in] and B [out,rank], float32, under PEFT's keys as `StableDiffusionPipeline.
// load_lora_weights` reads them:
//   unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight
// The layer's output gains scale · B A x, scale = alpha / rank.
struct LoraWeights {
  int rank = 0;
  double alpha = 0;
  NamedTensors tensors;

  double scale() const { return alpha / rank; }
};

// A ~ N(0, 1/rank) from LibTorch's CPU generator at `seed`, in key order; B = 0.
LoraWeights RandomLora(const UNet& unet, int rank, double alpha, uint64_t seed);

// Checks that the tensors fit this UNet, key for key and shape for shape. INVALID_ARGUMENT names
// the key and both shapes. alpha: of the file's metadata or `lora_alpha`, default rank.
absl::StatusOr<LoraWeights> LoraFromTensors(const UNet& unet, NamedTensors tensors,
                                            double alpha = 0);

absl::StatusOr<LoraWeights> ReadLora(const UNet& unet, const std::string& path);
std::string SerializeLora(const LoraWeights& lora);

}  // namespace ddpo
