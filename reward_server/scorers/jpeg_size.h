#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "reward_server/scorer.h"

namespace ddpo {

// The size of the image as a JPEG file of quality 95, in kilobytes of 1000 bytes: the rewards of
// arXiv 2305.13301, section 5.1, equal to what ddpo-pytorch computes with Pillow. Registers
//   jpeg_compressibility     −bytes / 1000
//   jpeg_incompressibility   +bytes / 1000
// with `bytes` among the details.
absl::Status RegisterJpegSizeScorers(ScorerRegistry* registry);

}  // namespace ddpo
