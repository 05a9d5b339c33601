#pragma once

#include <ATen/ATen.h>

namespace ddpo {

// Where a network's frozen weights live and which number type holds them and computes.
struct NetworkOptions {
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
};

}  // namespace ddpo
