#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/tensors/image.h"

namespace ddpo {

// T steps, latent [C,h,w].
struct SampledTrajectory {
  std::vector<float> latents;    // [T+1,C,h,w]
  std::vector<float> log_probs;  // [T]
  Image image;
};

struct SampledBatch {
  int num_steps = 0;
  int latent_channels = 0;
  int latent_height = 0;
  int latent_width = 0;
  std::vector<SampledTrajectory> samples;
};

// Turns prompts and seeds into images with the policy that was set last. One thread calls it.
class Sampler {
 public:
  virtual ~Sampler() = default;

  // Takes the policy's weights, a safetensors file: a LoRA with PEFT's keys, or all of the UNet's
  // as SerializeUNetWeights writes them. On an error the old policy stays.
  virtual absl::Status SetPolicy(const std::string& safetensors) = 0;

  // Denoises one batch. `cancelled` is asked between steps; true ends it with CANCELLED.
  virtual absl::StatusOr<SampledBatch> Sample(const std::vector<std::string>& prompts,
                                              const std::vector<uint64_t>& seeds,
                                              const std::function<bool()>& cancelled) = 0;
};

}  // namespace ddpo
