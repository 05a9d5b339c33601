#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ddpo/reward/v1/reward.pb.h"
#include "reward_server/scorer.h"

namespace ddpo {

// An item's error with a reason for programs: UPPER_SNAKE, as in IMAGE_TOO_LARGE.
absl::Status ItemFailure(absl::StatusCode code, absl::string_view reason,
                         absl::string_view message);

// What a caller sends, checked and decoded.
//   PROMPT_MISSING        the scorer needs a prompt
//   IMAGE_MISSING         neither encoded nor raw, or 0 bytes
//   IMAGE_TOO_LARGE       width × height is over max_pixels; known before anything is decoded
//   IMAGE_SIZE_MISMATCH   raw bytes are not height × width × 3
//   IMAGE_DECODE_FAILED   neither a JPEG nor a PNG, or a damaged one
// All of them are INVALID_ARGUMENT.
absl::StatusOr<ScoringInput> ToScoringInput(const reward::v1::ScoreItem& item,
                                            const ScorerInfo& scorer, int64_t max_pixels);

// Writes the outcome into a result, whose item_id is set already. An error without a reason of its
// own gets its code's name.
void SetOutcome(const absl::StatusOr<ScoreValue>& outcome, reward::v1::ScoreResult* result);

}  // namespace ddpo
