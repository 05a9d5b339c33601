#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "common/tensors/safetensors.h"

namespace ddpo {

struct Tolerance {
  double absolute = 1e-4;
  double relative = 1e-4;
};

// How one computed tensor differs from the expected one.
struct TensorComparison {
  std::string name;
  bool matches = false;
  // Largest |a−b| and |a−b| / |b| over the elements, and the cosine of the two as vectors.
  double max_absolute = 0;
  double max_relative = 0;
  double cosine = 0;
  // Why the two could not be compared element by element (missing, another shape); else empty.
  std::string problem;
};

// Each expected tensor against the actual one of its name. Floating-point elements match where
// |a−b| ≤ absolute + relative·|b|, integers where they are equal; anything not finite matches only
// itself.
std::vector<TensorComparison> CompareTensors(const NamedTensors& actual,
                                             const NamedTensors& expected,
                                             const Tolerance& tolerance);

}  // namespace ddpo
