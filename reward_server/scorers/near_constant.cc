#include "reward_server/scorers/near_constant.h"

#include <algorithm>
#include <cmath>
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
      scores[i]->details["near_constant"] = LargestChannelStd(inputs[i].image) < threshold_ ? 1 : 0;
    }
    return scores;
  }

 private:
  const std::unique_ptr<Scorer> scorer_;
  const double threshold_;
};

}  // namespace

double LargestChannelStd(const Image& image) {
  const size_t pixels = image.rgb.size() / 3;
  double largest = 0;
  for (size_t channel = 0; channel < 3 && pixels > 0; ++channel) {
    // In integers, exact up to 2^48 pixels.
    uint64_t sum = 0;
    uint64_t squares = 0;
    for (size_t i = channel; i < 3 * pixels; i += 3) {
      const uint64_t value = image.rgb[i];
      sum += value;
      squares += value * value;
    }
    const double mean = static_cast<double>(sum) / static_cast<double>(pixels);
    const double variance =
        static_cast<double>(squares) / static_cast<double>(pixels) - mean * mean;
    largest = std::max(largest, std::sqrt(std::max(0.0, variance)));
  }
  return largest;
}

std::unique_ptr<Scorer> FlagNearConstantImages(std::unique_ptr<Scorer> scorer, double threshold) {
  return std::make_unique<FlaggingScorer>(std::move(scorer), threshold);
}

}  // namespace ddpo
