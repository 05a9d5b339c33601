#include "learner/objective.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "learner/ddpo_is.h"
#include "learner/ddpo_sf.h"
#include "learner/rwr.h"

namespace ddpo {

absl::StatusOr<std::unique_ptr<Objective>> CreateObjective(const ObjectiveOptions& options,
                                                           const DdimScheduler& scheduler) {
  if (options.name == "ddpo_is") return std::make_unique<DdpoIsObjective>(options, scheduler);
  if (options.name == "ddpo_sf") return std::make_unique<DdpoSfObjective>(options, scheduler);
  if (options.name == "rwr" || options.name == "rwr_sparse") {
    return std::make_unique<RwrObjective>();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "objective is “", options.name, "”, expected ddpo_is, ddpo_sf, rwr or rwr_sparse"));
}

}  // namespace ddpo
