#pragma once

#include <deque>
#include <optional>

#include "absl/time/time.h"

namespace ddpo {

// When a process that died is started again: at once the first time, then after waits that double,
// and not any more once it died too often in a short time.
class RestartPolicy {
 public:
  struct Options {
    absl::Duration first_wait = absl::Milliseconds(200);
    absl::Duration longest_wait = absl::Seconds(5);
    // A process that dies more than `max_deaths` times within `window` is broken for good.
    int max_deaths = 10;
    absl::Duration window = absl::Seconds(60);
  };

  explicit RestartPolicy(const Options& options) : options_(options) {}

  // Counts a death; the time of the next start, or nothing where there is to be none.
  std::optional<absl::Time> NextStart(absl::Time now);

 private:
  const Options options_;
  std::deque<absl::Time> deaths_;  // those of the last `window`
};

}  // namespace ddpo
