#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "ddpo/config/v1/config.pb.h"
#include "learner/sample_weighting.h"

namespace ddpo {

// What the configured objective weighs samples by. INVALID_ARGUMENT for options out of range.
absl::StatusOr<std::unique_ptr<SampleWeighting>> CreateSampleWeighting(
    const config::v1::TrainingConfig& config);

}  // namespace ddpo
