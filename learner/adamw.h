#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "common/tensors/safetensors.h"

namespace ddpo {

struct AdamWOptions {
  double learning_rate = 3e-4;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 1e-4;
};

// LibTorch's AdamW (decoupled weight decay, arXiv 1711.05101) over named parameters.
class AdamW {
 public:
  // Changes the parameters' storage in place at each step.
  AdamW(const NamedTensors& parameters, const AdamWOptions& options);
  ~AdamW();

  // One step at `learning_rate_factor` times the learning rate. `gradients` holds a tensor of the
  // parameter's shape for each parameter.
  void Step(const NamedTensors& gradients, double learning_rate_factor = 1);

  // Steps taken so far.
  int64_t steps() const;

  // The moments as `exp_avg.NAME` and `exp_avg_sq.NAME`, and `step` [1] int64. Empty before the
  // first step.
  NamedTensors State() const;
  // INVALID_ARGUMENT, with nothing changed, names a tensor that is missing or has another shape.
  absl::Status Restore(const NamedTensors& state);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ddpo
