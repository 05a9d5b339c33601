#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>

#include "common/diffusion/pipeline.h"
#include "learner/policy_trainer.h"

namespace ddpo {

// A trajectory of noise, of the pipeline's size and so many denoising steps.
inline TrainingSample RandomSample(const Pipeline& pipeline, int steps, int index = 0) {
  int64_t latent = 1;
  for (const int64_t size : pipeline.LatentShape()) latent *= size;
  TrainingSample sample;
  sample.task_id = "random";
  sample.sample_index = index;
  sample.prompt = "a cat";
  const at::Tensor noise = at::randn({(steps + 1) * latent});
  sample.latents.assign(noise.data_ptr<float>(), noise.data_ptr<float>() + noise.numel());
  sample.log_probs.assign(steps, 0.0f);
  return sample;
}

}  // namespace ddpo
