#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/tensors/safetensors.h"

namespace ddpo {

// Threads that compute the passes of one optimizer step side by side. The units' gradients are
// added in the units' order, so the sum has the same bits for any number of threads, and is what
// one thread would accumulate. One thread calls it.
class GradientWorkers {
 public:
  // What one optimizer step is made of. The functions run on any worker, side by side.
  struct Units {
    int64_t count = 0;
    // A unit's scalar loss of the parameters.
    std::function<absl::StatusOr<at::Tensor>(int64_t unit)> loss;
    // What an error message calls the unit.
    std::function<std::string(int64_t unit)> name;
  };

  // Starts the threads; each computes with one intra-op thread.
  explicit GradientWorkers(int threads);
  // Joins them.
  ~GradientWorkers();

  GradientWorkers(const GradientWorkers&) = delete;
  GradientWorkers& operator=(const GradientWorkers&) = delete;

  // The sum over the units of d(loss)/d(parameters), flattened in key order to [elements] float32.
  // The parameters are leaves that require gradients; their .grad stays as it is.
  // The error of the first unit, in unit order, that failed, with the unit's name: that of its loss
  // function, OUT_OF_RANGE for a loss or gradient that is not finite, INTERNAL for what LibTorch
  // throws.
  absl::StatusOr<at::Tensor> SumGradients(const NamedTensors& parameters, const Units& units)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Runs each unit, 0 … count−1, without recording gradients. The error of the first, in unit
  // order, that failed; INTERNAL for what LibTorch throws.
  absl::Status ForEach(int64_t count, const std::function<absl::Status(int64_t unit)>& run)
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Job;

  absl::Status RunJob(Job& job) ABSL_LOCKS_EXCLUDED(mutex_);

  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  bool WorkerCanGoOn() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  int threads_ready_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  Job* job_ ABSL_GUARDED_BY(mutex_) = nullptr;  // null between calls of SumGradients
  const int num_threads_;
  std::vector<std::thread> threads_;
};

}  // namespace ddpo
