#pragma once

#include <string>

#include "absl/status/status.h"

namespace ddpo {

// A loss, a gradient or a weight that is not finite is OUT_OF_RANGE. Nothing else in the learner's
// update has that code, so that it is told from what LibTorch throws, as without memory.
inline absl::Status NonFiniteError(const std::string& message) {
  return absl::OutOfRangeError(message);
}
inline bool IsNonFinite(const absl::Status& status) { return absl::IsOutOfRange(status); }

}  // namespace ddpo
