#include "reward_server/scorers/near_constant.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

namespace ddpo {
namespace {

class FlaggingScorer : public Scorer {
 public:
  FlaggingScorer(std::unique_ptr<Scorer> scorer, double threshold)
      : scorer_(std::move(scorer)), threshold_(threshold) {}

  const ScorerInfo& info() const override { return scorer_->info(); }

  std::vector<absl::StatusOr<ScoreValue>> ScoreBatch(
      absl::Span<const ScoringInput> inputs) override {
    std::vector<absl::StatusOr<ScoreValue>> scores = scorer_->ScoreBatch(inputs);
    for (size_t i = 0; i < std::min(scores.size(), inputs.size()); ++i) {
      if (!scores[i].ok()) continue;
      scores[i]->details["near_constant"] = IsNearConstant(inputs[i].image, threshold_) ? 1 : 0;
    }
    return scores;
  }

 private:
  const std::unique_ptr<Scorer> scorer_;
  const double threshold_;
};

}  // namespace

bool IsNearConstant(const Image& image, double threshold) {
  constexpr size_t kChannels = 3;
  constexpr size_t kPixelsAtOnce = 1024;
  const size_t pixels = image.rgb.size() / kChannels;
  // Sum of the squared deviations from the mean that the threshold stands for. The sum only grows
  // with more pixels, so that most images are done after a few.
  const double enough = threshold * threshold * static_cast<double>(pixels);
  // In integers, exact up to 2^48 pixels.
  std::array<uint64_t, kChannels> sums{};
  std::array<uint64_t, kChannels> squares{};
  for (size_t begin = 0; begin < pixels; begin += kPixelsAtOnce) {
    const size_t end = std::min(pixels, begin + kPixelsAtOnce);
    for (size_t i = kChannels * begin; i < kChannels * end; ++i) {
      const uint64_t value = image.rgb[i];
      sums[i % kChannels] += value;
      squares[i % kChannels] += value * value;
    }
    for (size_t channel = 0; channel < kChannels; ++channel) {
      const auto sum = static_cast<double>(sums[channel]);
      const double deviation =
          static_cast<double>(squares[channel]) - sum * sum / static_cast<double>(end);
      if (deviation >= enough) return false;
    }
  }
  return true;
}

std::unique_ptr<Scorer> FlagNearConstantImages(std::unique_ptr<Scorer> scorer, double threshold) {
  return std::make_unique<FlaggingScorer>(std::move(scorer), threshold);
}

}  // namespace ddpo
