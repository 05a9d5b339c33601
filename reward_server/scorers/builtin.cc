#include "common/base/status_macros.h"
#include "reward_server/scorer.h"
#include "reward_server/scorers/jpeg_size.h"

namespace ddpo {

absl::StatusOr<ScorerRegistry> BuiltinScorers() {
  ScorerRegistry registry;
  DDPO_RETURN_IF_ERROR(RegisterJpegSizeScorers(&registry));
  return registry;
}

}  // namespace ddpo
