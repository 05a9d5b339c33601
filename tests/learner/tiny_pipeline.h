#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/diffusion/pipeline.h"
#include "learner/policy_trainer.h"
#include "tests/testing/paths.h"

namespace ddpo::testing {

inline std::unique_ptr<Pipeline> LoadTinyPipeline(const NetworkOptions& network = {}) {
  return Pipeline::Load(SourcePath("tests/goldens/pipelines/tiny"), network).value();
}

// Samples `prompts` in batches of `batch_size`, as an actor does; seeds count up from 0.
inline std::vector<TrainingSample> SampleTrajectories(
    const Pipeline& pipeline, const std::vector<std::string>& prompts, size_t batch_size,
    const DenoiseOptions& options, const LoraWeights* lora, int64_t policy_version = 0) {
  std::vector<TrainingSample> samples;
  for (size_t begin = 0; begin < prompts.size(); begin += batch_size) {
    const size_t end = std::min(begin + batch_size, prompts.size());
    std::vector<uint64_t> seeds;
    for (size_t i = begin; i < end; ++i) seeds.push_back(i);
    const std::vector<std::string> batch(prompts.begin() + begin, prompts.begin() + end);
    const Trajectory trajectory =
        pipeline.Denoise(batch, pipeline.DrawNoise(seeds, options.num_steps), options, lora)
            .value();
    for (size_t i = 0; i < batch.size(); ++i) {
      const auto row = static_cast<int64_t>(i);
      const at::Tensor latents = trajectory.latents[row].contiguous();
      const at::Tensor log_probs = trajectory.log_probs[row].contiguous();
      TrainingSample sample;
      sample.task_id = "batch-" + std::to_string(begin / batch_size);
      sample.sample_index = static_cast<int>(i);
      sample.prompt = batch[i];
      sample.policy_version = policy_version;
      sample.latents.assign(latents.const_data_ptr<float>(),
                            latents.const_data_ptr<float>() + latents.numel());
      sample.log_probs.assign(log_probs.const_data_ptr<float>(),
                              log_probs.const_data_ptr<float>() + log_probs.numel());
      samples.push_back(std::move(sample));
    }
  }
  return samples;
}

}  // namespace ddpo::testing
