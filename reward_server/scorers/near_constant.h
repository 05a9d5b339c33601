#pragma once

#include <memory>

#include "common/tensors/image.h"
#include "reward_server/scorer.h"

namespace ddpo {

// The largest of the three channels' standard deviations over the pixels, in 0 … 127.5. 0 for an
// image without pixels.
double LargestChannelStd(const Image& image);

// The scorer, whose details also say `near_constant`: 1 where no channel's standard deviation
// reaches `threshold` (of 0 … 255), 0 elsewhere. A policy that collapsed to black images shows so.
std::unique_ptr<Scorer> FlagNearConstantImages(std::unique_ptr<Scorer> scorer, double threshold);

}  // namespace ddpo
