#pragma once

#include <ATen/ATen.h>

#include <functional>

#include "absl/status/status.h"
#include "learner/collective/collective.h"

namespace ddpo {

// A function that turns this rank's flat float32 tensor into the ranks' mean, in place: the sum
// over ranks, then divided. Empty where there is one rank. The collective outlives it.
std::function<absl::Status(at::Tensor&)> RankMean(Collective* collective);

}  // namespace ddpo
