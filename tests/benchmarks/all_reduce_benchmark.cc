// How much of an update the ranks spend in the all-reduce of their gradients: what overlapping it
// with the backward passes could save at most. Two ranks, threads of this process, over Gloo.
//
//   all_reduce_benchmark --model DIR [--steps 50] [--minibatch 4] [--accumulation 2]
//                        [--lora-rank 4] [--updates 3] [--full]

#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/base/free_port.h"
#include "common/base/status_macros.h"
#include "common/diffusion/pipeline.h"
#include "learner/collective/collective.h"
#include "learner/ddpo_trainer.h"
#include "learner/rank_mean.h"
#include "tests/benchmarks/random_sample.h"

namespace ddpo {
namespace {

constexpr int kRanks = 2;

struct Flags {
  std::string model;
  int steps = 50;
  int minibatch = 4;
  int accumulation = 2;
  int lora_rank = 4;
  int updates = 3;
  bool full = false;
};

struct Timing {
  absl::Status status;
  int64_t elements = 0;
  absl::Duration update;
  absl::Duration all_reduce;
};

// Optimizer steps as one rank.
absl::Status RunRank(const Flags& flags, uint16_t port, int rank, Timing* timing) {
  at::set_num_threads(1);
  CollectiveOptions ranks;
  ranks.rank = rank;
  ranks.size = kRanks;
  ranks.backend = "gloo";
  ranks.store_host = "127.0.0.1";
  ranks.store_port = port;
  ranks.timeout = absl::Minutes(10);
  DDPO_ASSIGN_OR_RETURN(const std::unique_ptr<Collective> collective, CreateCollective(ranks));
  DDPO_ASSIGN_OR_RETURN(std::unique_ptr<Pipeline> pipeline,
                        Pipeline::Load(flags.model, NetworkOptions()));
  std::vector<TrainingSample> samples;
  for (int i = 0; i < flags.minibatch * flags.accumulation; ++i) {
    samples.push_back(RandomSample(*pipeline, flags.steps, i));
  }
  const std::vector<double> advantages(samples.size(), 1.0);

  DdpoTrainerOptions options;
  options.step.objective.num_steps = flags.steps;
  options.step.minibatch_size = flags.minibatch;
  options.gradient_accumulation = flags.accumulation;
  options.lora_rank = flags.lora_rank;
  options.full_finetuning = flags.full;
  options.rank = rank;
  const auto mean = RankMean(collective.get());
  options.rank_mean = [&, mean](at::Tensor& gradient) -> absl::Status {
    // Waiting for the other rank is none of the all-reduce.
    DDPO_RETURN_IF_ERROR(collective->AllGather("").status());
    const absl::Time start = absl::Now();
    DDPO_RETURN_IF_ERROR(mean(gradient));
    timing->all_reduce += absl::Now() - start;
    timing->elements = gradient.numel();
    return absl::OkStatus();
  };
  DDPO_ASSIGN_OR_RETURN(const std::unique_ptr<PolicyTrainer> trainer,
                        CreateDdpoTrainer(options, std::move(pipeline)));
  // The first one opens connections and allocates.
  DDPO_RETURN_IF_ERROR(trainer->TrainEpoch(samples, advantages, 0).status());
  timing->all_reduce = absl::ZeroDuration();
  DDPO_RETURN_IF_ERROR(collective->AllGather("").status());
  const absl::Time start = absl::Now();
  for (int epoch = 1; epoch <= flags.updates; ++epoch) {
    DDPO_RETURN_IF_ERROR(trainer->TrainEpoch(samples, advantages, epoch).status());
  }
  timing->update = absl::Now() - start;
  return collective->Leave();
}

int Run(const Flags& flags) {
  const auto port = FreePort();
  std::vector<Timing> timings(kRanks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kRanks; ++rank) {
    threads.emplace_back([&, rank] {
      timings[rank].status =
          port.ok() ? RunRank(flags, static_cast<uint16_t>(*port), rank, &timings[rank])
                    : port.status();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Timing& timing : timings) {
    if (timing.status.ok()) continue;
    std::fprintf(stderr, "%s\n", timing.status.ToString().c_str());
    return 1;
  }
  const Timing& timing = timings[0];
  std::printf("gradient of %lld elements: all-reduce %.2f ms of updates of %.1f ms: %.3f %%\n",
              static_cast<long long>(timing.elements),
              absl::ToDoubleMilliseconds(timing.all_reduce),
              absl::ToDoubleMilliseconds(timing.update),
              100 * absl::FDivDuration(timing.all_reduce, timing.update));
  return 0;
}

}  // namespace
}  // namespace ddpo

int main(int argc, char** argv) {
  CLI::App app("The all-reduce's share of an update");
  ddpo::Flags flags;
  app.add_option("--model", flags.model, "Folder in diffusers' layout")->required();
  app.add_option("--steps", flags.steps, "Denoising steps of a trajectory")->capture_default_str();
  app.add_option("--minibatch", flags.minibatch, "Samples of a pass")->capture_default_str();
  app.add_option("--accumulation", flags.accumulation, "Minibatches of an optimizer step")
      ->capture_default_str();
  app.add_option("--lora-rank", flags.lora_rank)->capture_default_str();
  app.add_option("--updates", flags.updates, "Optimizer steps")->capture_default_str();
  app.add_flag("--full", flags.full, "Train the UNet's own weights");
  CLI11_PARSE(app, argc, argv);
  return ddpo::Run(flags);
}
