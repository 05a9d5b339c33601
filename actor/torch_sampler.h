#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "actor/sampler.h"
#include "common/diffusion/pipeline.h"

namespace ddpo {

struct TorchSamplerOptions {
  DenoiseOptions denoise;
  // Merge the policy's LoRA into the base weights: faster; log-probabilities then equal the
  // learner's within 1e-5 instead of to the bit.
  bool merge_lora = false;
};

// Samples with a pipeline in this process; the pipeline's NetworkOptions say where and in which
// number type. Before the first SetPolicy it samples with the base model. What LibTorch throws
// comes back as INTERNAL.
std::unique_ptr<Sampler> CreateTorchSampler(const TorchSamplerOptions& options,
                                            std::unique_ptr<Pipeline> pipeline);

}  // namespace ddpo
