#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace ddpo {

// What an epoch's rewards make of its samples: advantages for policy gradients, weights for
// regression. Thread-compatible.
class SampleWeighting {
 public:
  virtual ~SampleWeighting() = default;

  // A number for each sample of an epoch, over all ranks, in their order. INVALID_ARGUMENT, with
  // nothing changed, for spans of unequal length and rewards that are not finite.
  virtual absl::StatusOr<std::vector<double>> Update(absl::Span<const std::string> prompts,
                                                     absl::Span<const double> rewards) = 0;

  // What it remembers between epochs, for a checkpoint: equal memories give equal bytes.
  virtual std::string SerializeState() const = 0;
  // INVALID_ARGUMENT, with nothing changed, for anything that SerializeState does not write.
  virtual absl::Status RestoreState(const std::string& state) = 0;
};

// INVALID_ARGUMENT names a sample whose reward is not finite, and spans of unequal length.
absl::Status CheckRewards(absl::Span<const std::string> prompts, absl::Span<const double> rewards);

}  // namespace ddpo
