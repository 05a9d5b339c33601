#include "learner/sample_weighting.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace ddpo {

absl::Status CheckRewards(absl::Span<const std::string> prompts, absl::Span<const double> rewards) {
  if (prompts.size() != rewards.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("advantages: ", prompts.size(), " prompts for ", rewards.size(), " rewards"));
  }
  for (size_t i = 0; i < rewards.size(); ++i) {
    if (!std::isfinite(rewards[i])) {
      return absl::InvalidArgumentError(absl::StrCat("advantages: the reward of sample ", i, " (“",
                                                     prompts[i], "”) is ", rewards[i],
                                                     ", expected a finite number"));
    }
  }
  return absl::OkStatus();
}

}  // namespace ddpo
