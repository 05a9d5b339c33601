#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/clock.h"

namespace ddpo {

struct RetryOptions {
  // Deadline of one attempt.
  absl::Duration attempt_timeout = absl::Seconds(10);
  // No attempt starts later than this after the first.
  absl::Duration give_up_after = absl::Seconds(60);
  // Pause before the second attempt; doubles up to max_pause, and each is shortened by up to half
  // at random, so that many clients don't come back at once.
  absl::Duration first_pause = absl::Milliseconds(50);
  absl::Duration max_pause = absl::Seconds(2);
  uint64_t jitter_seed = 0;
  Clock* clock = Clock::Real();
  // Asked before each attempt; true ends with CANCELLED.
  std::function<bool()> cancelled;
};

// Whether another attempt may succeed: UNAVAILABLE, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED.
bool IsRetryable(const absl::Status& status);

// Calls `attempt(deadline)` until it succeeds, fails for good, or the options say to give up. The
// error is that of the last attempt, with `what` and the number of attempts before it. The call has
// to be idempotent.
absl::Status CallWithRetry(const std::string& what, const RetryOptions& options,
                           const std::function<absl::Status(absl::Time deadline)>& attempt);

}  // namespace ddpo
