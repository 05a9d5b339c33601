#include "tools/report/evaluation.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <thread>
#include <utility>

#include "absl/types/span.h"
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

namespace {

absl::StatusOr<std::vector<Image>> DrawBatch(const Pipeline& pipeline,
                                             absl::Span<const EvaluationPair> pairs,
                                             const DenoiseOptions& options, const LoraWeights* lora,
                                             const std::function<bool()>& cancelled) {
  const auto check = [&](int) {
    return cancelled() ? absl::CancelledError("the evaluation was cancelled") : absl::OkStatus();
  };
  const at::NoGradGuard no_grad;
  std::vector<std::string> prompts;
  std::vector<uint64_t> seeds;
  for (const EvaluationPair& pair : pairs) {
    prompts.push_back(pair.prompt);
    seeds.push_back(pair.seed);
  }
  DDPO_ASSIGN_OR_RETURN(const Trajectory trajectory,
                        pipeline.Denoise(prompts, pipeline.DrawNoise(seeds, options.num_steps),
                                         options, lora, check));
  return pipeline.DecodeToImages(trajectory.latents.select(1, options.num_steps));
}

}  // namespace

absl::StatusOr<std::vector<Image>> DrawPairs(const Pipeline& pipeline,
                                             const std::vector<EvaluationPair>& pairs,
                                             const config::v1::SamplingConfig& sampling,
                                             const LoraWeights* lora,
                                             const std::function<bool()>& cancelled) {
  DenoiseOptions options;
  options.num_steps = sampling.num_steps();
  options.guidance_scale = sampling.guidance_scale();
  options.eta = sampling.eta();
  const size_t batch_size = sampling.batch_size();
  const size_t batches = (pairs.size() + batch_size - 1) / batch_size;
  std::vector<absl::StatusOr<std::vector<Image>>> drawn(batches);
  std::atomic<size_t> next = 0;
  // A thread a batch: threads within one operation wait for each other at every one of them, which
  // on a busy machine takes many times as long.
  const auto work = [&] {
    at::set_num_threads(1);
    for (size_t batch = next++; batch < batches; batch = next++) {
      drawn[batch] =
          DrawBatch(pipeline, absl::MakeConstSpan(pairs).subspan(batch * batch_size, batch_size),
                    options, lora, cancelled);
    }
  };
  {
    const size_t cores = sampling.device() == "cpu" ? std::thread::hardware_concurrency() : 1;
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < std::clamp<size_t>(cores, 1, batches); ++i) threads.emplace_back(work);
  }
  std::vector<Image> images;
  for (absl::StatusOr<std::vector<Image>>& batch : drawn) {
    DDPO_RETURN_IF_ERROR(batch.status());
    std::move(batch->begin(), batch->end(), std::back_inserter(images));
  }
  return images;
}

}  // namespace ddpo
