#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/diffusion/pipeline.h"
#include "common/nn/lora.h"
#include "common/tensors/image.h"
#include "ddpo/config/v1/config.pb.h"

namespace ddpo {

// One image of the comparison: drawn by the base model and by the policy from the same noise.
struct EvaluationPair {
  std::string prompt;
  uint64_t seed = 0;
};

// The `count` pairs of a run: the prompts in turn, seeds derived from `evaluation_seed` in a stream
// of their own.
std::vector<EvaluationPair> EvaluationPairs(const std::vector<std::string>& prompts, int count,
                                            uint64_t evaluation_seed);

// Draws the pairs in batches of sampling.batch_size. lora: null for the UNet alone. `cancelled` is
// asked between denoising steps, from several threads; true ends it with CANCELLED.
absl::StatusOr<std::vector<Image>> DrawPairs(const Pipeline& pipeline,
                                             const std::vector<EvaluationPair>& pairs,
                                             const config::v1::SamplingConfig& sampling,
                                             const LoraWeights* lora,
                                             const std::function<bool()>& cancelled);

}  // namespace ddpo
