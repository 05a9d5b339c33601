#include "common/rpc/retry.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/random.h"

namespace ddpo {

bool IsRetryable(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsResourceExhausted(status) || absl::IsAborted(status);
}

absl::Status CallWithRetry(const std::string& what, const RetryOptions& options,
                           const std::function<absl::Status(absl::Time deadline)>& attempt) {
  Clock& clock = *options.clock;
  const absl::Time give_up = clock.Now() + options.give_up_after;
  absl::Duration pause = options.first_pause;
  for (uint64_t attempts = 1;; ++attempts) {
    if (options.cancelled && options.cancelled()) {
      return absl::CancelledError(absl::StrCat(what, ": cancelled"));
    }
    const absl::Status status = attempt(clock.Now() + options.attempt_timeout);
    if (status.ok()) return status;
    const double random =
        static_cast<double>(DeriveSeed(options.jitter_seed, what, attempts) >> 11) * 0x1p-53;
    const absl::Duration shortened = pause * (1.0 - 0.5 * random);
    if (!IsRetryable(status) || clock.Now() + shortened > give_up) {
      return absl::Status(status.code(),
                          absl::StrCat(what, ": ", status.message(), " (attempt ", attempts, ")"));
    }
    clock.Sleep(shortened);
    pause = std::min(pause * 2, options.max_pause);
  }
}

}  // namespace ddpo
