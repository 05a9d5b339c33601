#pragma once

#include <string>

#include "absl/status/status.h"
#include "ddpo/config/v1/config.pb.h"

namespace ddpo {

// Whether a run that was made with `before` can go on with `after`. What leaves its numbers as they
// are may change: more epochs, other processes, the model's place. So may the number of learner
// ranks, with the sizes that it goes with (training.minibatch_size, gradient_accumulation), which
// DescribeRankChange speaks of. FAILED_PRECONDITION names the other keys that differ.
absl::Status CheckSameRun(const config::v1::Config& before, const config::v1::Config& after);

// What another number of ranks, or other sizes, do to the update, for people; empty where they are
// the same.
std::string DescribeRankChange(const config::v1::Config& before, const config::v1::Config& after);

}  // namespace ddpo
