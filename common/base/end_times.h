#pragma once

#include "absl/time/time.h"

namespace ddpo {

// How long a learner that ends waits at most: for its actors to hear of it, and after that for
// calls under way. Whoever looks after learners grants both, and a margin, before killing one.
inline constexpr absl::Duration kLearnerFarewell = absl::Seconds(3);
inline constexpr absl::Duration kLearnerDrain = absl::Seconds(5);

}  // namespace ddpo
