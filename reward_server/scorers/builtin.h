#pragma once

#include "absl/status/statusor.h"
#include "ddpo/config/v1/config.pb.h"
#include "reward_server/scorer.h"

namespace ddpo {

// Every scorer of this build that the configuration gives what it needs:
//   jpeg_compressibility, jpeg_incompressibility   always
//   aesthetic                                      where aesthetic.clip is set
//   counting                                       where judge.llava or judge.endpoint is set
//   alignment                                      where bert_score.encoder is set besides
//   the names of sums                              where sums has them
// Each also flags near-constant images. A model is loaded when the first scorer that needs it is
// made; scorers of one registry share the judge and the text encoder. INVALID_ARGUMENT for a judge
// or a sum that cannot be.
absl::StatusOr<ScorerRegistry> BuiltinScorers(const config::v1::ScoringConfig& config);

}  // namespace ddpo
