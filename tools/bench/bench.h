#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace ddpo {

// What is measured; the same for sampling, update and the whole loop.
struct BenchOptions {
  std::string model;
  int steps = 10;
  int batch = 16;    // images denoised together, and samples of a minibatch
  int samples = 64;  // of one measurement, and of an epoch of the loop
  int threads = 2;   // one-thread workers: samplers, backward passes, actors
  int repeats = 3;   // measurements after one that warms up; the median counts
};

// Each returns samples per second.
//
// Denoising, decoding included, by `threads` samplers side by side.
absl::StatusOr<double> BenchSampler(const BenchOptions& options);
// One epoch of DDPO_IS on sampled trajectories.
absl::StatusOr<double> BenchUpdate(const BenchOptions& options);
// A run of the real processes with the JPEG reward, as its metrics.jsonl tells.
absl::StatusOr<double> BenchLoop(const BenchOptions& options);

}  // namespace ddpo
