#pragma once

#include <memory>
#include <string>
#include <vector>

#include "learner/sample_weighting.h"

namespace ddpo {

// How the authors' JAX code (jannerm/ddpo) weighs samples for reward-weighted regression. Both
// remember nothing between epochs.

struct RwrOptions {
  // The "temperature" 1/5 of the paper, by which that code multiplies.
  double beta = 0.2;
  // The softmax runs over each prompt's samples by themselves.
  bool per_prompt = false;
};
// N · softmax(β · reward), so that the mean weight is 1, of each prompt's samples with per_prompt.
std::unique_ptr<SampleWeighting> CreateRwrWeighting(const RwrOptions& options);

struct SparseRwrOptions {
  double percentile = 90;
  int max_samples = 1024;
};
// 1 for rewards of at least the percentile of all (numpy's, with linear interpolation), 0 for the
// others; where more than max_samples reach it, for the best, the earlier of equal ones.
std::unique_ptr<SampleWeighting> CreateSparseRwrWeighting(const SparseRwrOptions& options);

}  // namespace ddpo
