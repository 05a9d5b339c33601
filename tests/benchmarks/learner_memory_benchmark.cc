// What a learner rank keeps in memory: bytes of a trajectory, and the peak of one update at batch 1
// with and without gradient checkpointing, as the sum of the live tensors' sizes on the CPU.
//
//   learner_memory_benchmark --model DIR [--steps 50] [--lora-rank 4] [--dtype float32]

#include <ATen/Parallel.h>
#include <c10/core/CPUAllocator.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/base/status_macros.h"
#include "common/diffusion/pipeline.h"
#include "common/nn/network_options.h"
#include "common/tensors/safetensors.h"
#include "learner/ddpo_trainer.h"
#include "tests/benchmarks/random_sample.h"

namespace ddpo {
namespace {

// Hands on to LibTorch's allocator and counts what is live. There is one, which lives as long as
// the process: LibTorch may free through it at any time.
class CountingAllocator : public c10::Allocator {
 public:
  static CountingAllocator& Install() {
    instance = new CountingAllocator(c10::GetCPUAllocator());
    c10::SetCPUAllocator(instance, /*priority=*/1);
    return *instance;
  }

  c10::DataPtr allocate(size_t bytes) override {
    void* const data = base_->raw_allocate(bytes);
    const absl::MutexLock lock(&mutex_);
    sizes_[data] = static_cast<int64_t>(bytes);
    live_ += static_cast<int64_t>(bytes);
    peak_ = std::max(peak_, live_);
    return {data, data, &CountingAllocator::Free, c10::Device(c10::kCPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &CountingAllocator::Free; }

  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  int64_t live() const {
    const absl::MutexLock lock(&mutex_);
    return live_;
  }
  int64_t peak() const {
    const absl::MutexLock lock(&mutex_);
    return peak_;
  }
  void ForgetPeak() {
    const absl::MutexLock lock(&mutex_);
    peak_ = live_;
  }

 private:
  explicit CountingAllocator(c10::Allocator* base) : base_(base) {}

  static void Free(void* data) {
    if (data == nullptr) return;
    {
      const absl::MutexLock lock(&instance->mutex_);
      const auto found = instance->sizes_.find(data);
      instance->live_ -= found->second;
      instance->sizes_.erase(found);
    }
    instance->base_->raw_deallocate(data);
  }

  static CountingAllocator* instance;
  c10::Allocator* const base_;
  mutable absl::Mutex mutex_;
  std::unordered_map<void*, int64_t> sizes_ ABSL_GUARDED_BY(mutex_);
  int64_t live_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t peak_ ABSL_GUARDED_BY(mutex_) = 0;
};

CountingAllocator* CountingAllocator::instance = nullptr;

struct Flags {
  std::string model;
  int steps = 50;
  int lora_rank = 4;
  std::string dtype = "float32";
};

double Mib(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

// Of the UNet's weights as the file holds them.
absl::StatusOr<int64_t> WeightElements(const std::string& model) {
  int64_t elements = 0;
  for (const auto& file : std::filesystem::directory_iterator(model + "/unet")) {
    if (file.path().extension() != ".safetensors") continue;
    DDPO_ASSIGN_OR_RETURN(const SafetensorsContents contents,
                          ReadSafetensors(file.path().string()));
    for (const auto& [name, tensor] : contents.tensors) elements += tensor.numel();
  }
  return elements;
}

// One backward pass and optimizer step at batch 1.
absl::Status MeasureUpdate(const Flags& flags, bool gradient_checkpointing,
                           CountingAllocator& memory) {
  DDPO_ASSIGN_OR_RETURN(const NetworkOptions network, ParseNetworkOptions(flags.dtype, "cpu"));
  const int64_t at_start = memory.live();
  DDPO_ASSIGN_OR_RETURN(std::unique_ptr<Pipeline> pipeline, Pipeline::Load(flags.model, network));
  const TrainingSample sample = RandomSample(*pipeline, flags.steps);
  const int64_t loaded = memory.live() - at_start;

  DdpoTrainerOptions options;
  options.step.objective.num_steps = flags.steps;
  options.step.minibatch_size = 1;
  options.timestep_fraction = 1.0 / flags.steps;
  options.lora_rank = flags.lora_rank;
  options.gradient_checkpointing = gradient_checkpointing;
  DDPO_ASSIGN_OR_RETURN(std::unique_ptr<PolicyTrainer> trainer,
                        CreateDdpoTrainer(options, std::move(pipeline)));
  const int64_t before = memory.live();
  const int64_t policy = before - at_start - loaded;
  memory.ForgetPeak();
  const TrainingSample samples[] = {sample};
  const double advantages[] = {1.0};
  DDPO_RETURN_IF_ERROR(trainer->TrainEpoch(samples, advantages, 0).status());
  if (!gradient_checkpointing) {
    DDPO_ASSIGN_OR_RETURN(const int64_t elements, WeightElements(flags.model));
    const int64_t bytes =
        static_cast<int64_t>((sample.latents.size() + sample.log_probs.size()) * sizeof(float));
    std::printf("trajectory of %d steps             %10lld bytes a sample\n", flags.steps,
                static_cast<long long>(bytes));
    std::printf("UNet's weights in %-8s        %10.1f MiB\n", flags.dtype.c_str(),
                Mib(elements * static_cast<int64_t>(c10::elementSize(network.dtype))));
    std::printf("tensors beside mapped files        %10.1f MiB after loading\n", Mib(loaded));
    std::printf("LoRA of rank %d and AdamW's state   %10.1f MiB\n", flags.lora_rank, Mib(policy));
  }
  std::printf("update at batch 1, %-15s %10.1f MiB at its peak, weights and policy not counted\n",
              gradient_checkpointing ? "recomputing" : "keeping all", Mib(memory.peak() - before));
  return absl::OkStatus();
}

}  // namespace
}  // namespace ddpo

int main(int argc, char** argv) {
  CLI::App app("Memory of a learner rank, from live tensors");
  ddpo::Flags flags;
  app.add_option("--model", flags.model, "Folder in diffusers' layout")->required();
  app.add_option("--steps", flags.steps, "Denoising steps of a trajectory")->capture_default_str();
  app.add_option("--lora-rank", flags.lora_rank)->capture_default_str();
  app.add_option("--dtype", flags.dtype, "Of the base weights")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  ddpo::CountingAllocator& memory = ddpo::CountingAllocator::Install();
  for (const bool gradient_checkpointing : {false, true}) {
    const absl::Status status = ddpo::MeasureUpdate(flags, gradient_checkpointing, memory);
    if (!status.ok()) {
      std::fprintf(stderr, "%s\n", status.ToString().c_str());
      return 1;
    }
  }
}
