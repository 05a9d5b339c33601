#pragma once

#include <ATen/ATen.h>

#include <string>

#include "absl/status/statusor.h"

namespace ddpo {

// Where a network's frozen weights live and which number type holds them and computes.
struct NetworkOptions {
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
};

// dtype: float32, float16 or bfloat16; device: cpu, or cuda in a build with CUDA. INVALID_ARGUMENT
// for anything else.
absl::StatusOr<NetworkOptions> ParseNetworkOptions(const std::string& dtype,
                                                   const std::string& device);

}  // namespace ddpo
