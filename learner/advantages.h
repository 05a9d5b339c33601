#pragma once

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "learner/sample_weighting.h"

namespace ddpo {

struct AdvantageOptions {
  // Rewards remembered for each prompt; the oldest leave first.
  int buffer_size = 16;
  // How many of them it takes until they, not the epoch's, normalise that prompt's rewards.
  int min_count = 16;
  // Advantages are clamped to ± this.
  double clip = 5.0;
};

// Turns rewards into advantages, prompt by prompt: (r − mean) / (std + 1e-6), with numpy's
// population standard deviation. A prompt's rewards first join its buffer; then the buffer's mean
// and standard deviation normalise them, or those of all rewards of the call where the buffer holds
// fewer than min_count. As the PerPromptStatTracker of ddpo-pytorch and TRL. Thread-compatible.
class PromptStatistics : public SampleWeighting {
 public:
  // INVALID_ARGUMENT for sizes below 1 or a clip that is not positive.
  static absl::StatusOr<PromptStatistics> Create(const AdvantageOptions& options);

  // The advantages of an epoch's samples, in their order, which is also the order in which rewards
  // enter the buffers. INVALID_ARGUMENT, with nothing changed, for spans of unequal length and
  // rewards that are not finite.
  absl::StatusOr<std::vector<double>> Update(absl::Span<const std::string> prompts,
                                             absl::Span<const double> rewards) override;

  // The buffers as JSON, for a checkpoint: equal buffers give equal bytes, every number survives to
  // the bit.
  std::string SerializeState() const override;
  // INVALID_ARGUMENT, with nothing changed, for anything that SerializeState does not write.
  // Buffers longer than buffer_size keep their newest rewards.
  absl::Status RestoreState(const std::string& state) override;

 private:
  explicit PromptStatistics(const AdvantageOptions& options) : options_(options) {}

  void Remember(const std::string& prompt, double reward);

  AdvantageOptions options_;
  std::map<std::string, std::deque<double>> buffers_;
};

}  // namespace ddpo
