#include <ATen/Parallel.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "actor/torch_sampler.h"
#include "common/base/status_macros.h"
#include "common/config/prompts.h"
#include "common/diffusion/pipeline.h"
#include "learner/ddpo_trainer.h"
#include "tools/bench/bench.h"
#include "tools/bench/median.h"

namespace ddpo {
namespace {

absl::StatusOr<std::vector<std::string>> BenchPrompts() {
  config::v1::PromptsConfig config;
  config.set_set("animals");
  return LoadPrompts(config);
}

// Prompts in turn from the demo's list; a sample's seed is its index.
absl::StatusOr<SampledBatch> SampleBatch(Sampler& sampler, const std::vector<std::string>& prompts,
                                         int first, int count) {
  std::vector<std::string> batch_prompts;
  std::vector<uint64_t> seeds;
  for (int i = first; i < first + count; ++i) {
    batch_prompts.push_back(prompts[i % prompts.size()]);
    seeds.push_back(i);
  }
  return sampler.Sample(batch_prompts, seeds, [] { return false; });
}

absl::StatusOr<std::unique_ptr<Sampler>> MakeSampler(const BenchOptions& options) {
  DDPO_ASSIGN_OR_RETURN(std::unique_ptr<Pipeline> pipeline, Pipeline::Load(options.model, {}));
  TorchSamplerOptions sampler_options;
  sampler_options.denoise.num_steps = options.steps;
  return CreateTorchSampler(sampler_options, std::move(pipeline));
}

}  // namespace

absl::StatusOr<double> BenchSampler(const BenchOptions& options) {
  DDPO_ASSIGN_OR_RETURN(std::vector<std::string> prompts, BenchPrompts());
  std::vector<std::unique_ptr<Sampler>> samplers;
  for (int i = 0; i < options.threads; ++i) {
    DDPO_ASSIGN_OR_RETURN(std::unique_ptr<Sampler> sampler, MakeSampler(options));
    samplers.push_back(std::move(sampler));
  }
  std::vector<double> speeds;
  for (int repeat = 0; repeat <= options.repeats; ++repeat) {
    std::atomic<int> next{0};
    std::vector<absl::Status> statuses(samplers.size());
    std::vector<std::thread> threads;
    const absl::Time start = absl::Now();
    for (size_t i = 0; i < samplers.size(); ++i) {
      threads.emplace_back([&, i] {
        at::set_num_threads(1);
        for (int first; (first = next.fetch_add(options.batch)) < options.samples;) {
          const int count = std::min(options.batch, options.samples - first);
          statuses[i].Update(SampleBatch(*samplers[i], prompts, first, count).status());
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
    for (const absl::Status& status : statuses) DDPO_RETURN_IF_ERROR(status);
    if (repeat > 0) speeds.push_back(options.samples / seconds);
  }
  return Median(std::move(speeds));
}

absl::StatusOr<double> BenchUpdate(const BenchOptions& options) {
  at::set_num_threads(1);
  DDPO_ASSIGN_OR_RETURN(std::vector<std::string> prompts, BenchPrompts());
  DDPO_ASSIGN_OR_RETURN(std::unique_ptr<Sampler> sampler, MakeSampler(options));
  std::vector<TrainingSample> samples;
  std::vector<double> advantages;
  for (int first = 0; first < options.samples; first += options.batch) {
    const int count = std::min(options.batch, options.samples - first);
    DDPO_ASSIGN_OR_RETURN(SampledBatch batch, SampleBatch(*sampler, prompts, first, count));
    for (int i = 0; i < count; ++i) {
      TrainingSample sample;
      sample.task_id = absl::StrCat("bench-", first / options.batch);
      sample.sample_index = i;
      sample.prompt = prompts[(first + i) % prompts.size()];
      sample.latents = std::move(batch.samples[i].latents);
      sample.log_probs = std::move(batch.samples[i].log_probs);
      samples.push_back(std::move(sample));
      advantages.push_back(i % 2 == 0 ? 1.0 : -1.0);
    }
  }

  DdpoTrainerOptions trainer_options;
  trainer_options.step.objective.num_steps = options.steps;
  trainer_options.step.objective.clip_range = 1e-3;
  trainer_options.step.minibatch_size = options.batch;
  trainer_options.policy.optimizer.learning_rate = 3e-3;
  trainer_options.parallel_backwards = options.threads;
  DDPO_ASSIGN_OR_RETURN(std::unique_ptr<Pipeline> pipeline, Pipeline::Load(options.model, {}));
  DDPO_ASSIGN_OR_RETURN(std::unique_ptr<PolicyTrainer> trainer,
                        CreateDdpoTrainer(trainer_options, std::move(pipeline)));
  std::vector<double> speeds;
  for (int repeat = 0; repeat <= options.repeats; ++repeat) {
    const absl::Time start = absl::Now();
    DDPO_RETURN_IF_ERROR(trainer->TrainEpoch(samples, advantages, repeat).status());
    const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
    if (repeat > 0) speeds.push_back(options.samples / seconds);
  }
  return Median(std::move(speeds));
}

}  // namespace ddpo
