#include "tools/up/restart_policy.h"

#include <algorithm>

namespace ddpo {

std::optional<absl::Time> RestartPolicy::NextStart(absl::Time now) {
  while (!deaths_.empty() && now - deaths_.front() > options_.window) deaths_.pop_front();
  deaths_.push_back(now);
  if (static_cast<int>(deaths_.size()) > options_.max_deaths) return std::nullopt;
  absl::Duration wait = options_.first_wait;
  for (size_t i = 1; i < deaths_.size(); ++i) wait = std::min(2 * wait, options_.longest_wait);
  return now + wait;
}

}  // namespace ddpo
