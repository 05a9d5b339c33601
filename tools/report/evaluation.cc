#include "tools/report/evaluation.h"

#include <algorithm>
#include <utility>

#include "common/base/random.h"
#include "common/base/status_macros.h"

namespace ddpo {
std::vector<EvaluationPair> EvaluationPairs(const std::vector<std::string>& prompts, int count,
                                            uint64_t evaluation_seed) {
  std::vector<EvaluationPair> pairs;
  for (int i = 0; i < count; ++i) {
    pairs.push_back({prompts[i % prompts.size()], DeriveSeed(evaluation_seed, "evaluation", i)});
  }
  return pairs;
}

absl::StatusOr<std::vector<Image>> DrawPairs(const Pipeline& pipeline,
                                             const std::vector<EvaluationPair>& pairs,
                                             const config::v1::SamplingConfig& sampling,
                                             const LoraWeights* lora,
                                             const std::function<bool()>& cancelled) {
  const auto check = [&](int) {
    return cancelled() ? absl::CancelledError("the evaluation was cancelled") : absl::OkStatus();
  };
  at::NoGradGuard no_grad;
  DenoiseOptions options;
  options.num_steps = sampling.num_steps();
  options.guidance_scale = sampling.guidance_scale();
  options.eta = sampling.eta();
  std::vector<Image> images;
  for (size_t start = 0; start < pairs.size(); start += sampling.batch_size()) {
    const size_t end = std::min(pairs.size(), start + sampling.batch_size());
    std::vector<std::string> prompts;
    std::vector<uint64_t> seeds;
    for (size_t i = start; i < end; ++i) {
      prompts.push_back(pairs[i].prompt);
      seeds.push_back(pairs[i].seed);
    }
    DDPO_ASSIGN_OR_RETURN(Trajectory trajectory,
                          pipeline.Denoise(prompts, pipeline.DrawNoise(seeds, options.num_steps),
                                           options, lora, check));
    for (Image& image : pipeline.DecodeToImages(trajectory.latents.select(1, options.num_steps))) {
      images.push_back(std::move(image));
    }
  }
  return images;
}

}  // namespace ddpo
