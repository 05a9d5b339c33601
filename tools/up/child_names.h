#pragma once

#include <string>

#include "absl/strings/str_cat.h"

namespace ddpo {

// Names of a local cluster's processes: of their logs, in pids.json and in messages.
inline std::string LearnerName(int rank) { return absl::StrCat("learner-", rank); }
inline std::string ActorName(int index) { return absl::StrCat("actor-", index); }
inline std::string RewardServerName(int index) { return absl::StrCat("reward-server-", index); }

}  // namespace ddpo
