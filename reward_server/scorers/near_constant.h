#pragma once

#include <memory>

#include "common/tensors/image.h"
#include "reward_server/scorer.h"

namespace ddpo {

// Whether the standard deviation over the pixels, of 0 … 127.5, is below the threshold in each of
// the three channels; true for an image without pixels.
bool IsNearConstant(const Image& image, double threshold);

// The scorer, whose details also say `near_constant`: 1 where no channel's standard deviation
// reaches `threshold` (of 0 … 255), 0 elsewhere. A policy that collapsed to black images shows so.
std::unique_ptr<Scorer> FlagNearConstantImages(std::unique_ptr<Scorer> scorer, double threshold);

}  // namespace ddpo
