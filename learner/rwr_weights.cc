#include "learner/rwr_weights.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <numeric>

#include "common/base/status_macros.h"

namespace ddpo {
namespace {

// Weightings that look at one epoch alone.
class EpochWeighting : public SampleWeighting {
 public:
  std::string SerializeState() const override { return "{}"; }
  absl::Status RestoreState(const std::string& state) override {
    if (state == "{}") return absl::OkStatus();
    return absl::InvalidArgumentError("RWR's weights have no state, expected {}");
  }
};

class RwrWeighting : public EpochWeighting {
 public:
  explicit RwrWeighting(const RwrOptions& options) : options_(options) {}

  absl::StatusOr<std::vector<double>> Update(absl::Span<const std::string> prompts,
                                             absl::Span<const double> rewards) override {
    DDPO_RETURN_IF_ERROR(CheckRewards(prompts, rewards));
    std::map<std::string, std::vector<size_t>> groups;
    for (size_t i = 0; i < rewards.size(); ++i) {
      groups[options_.per_prompt ? prompts[i] : std::string()].push_back(i);
    }
    std::vector<double> weights(rewards.size());
    for (const auto& [prompt, members] : groups) {
      // Less the largest: the exponentials cannot overflow.
      double largest = rewards[members.front()];
      for (const size_t i : members) largest = std::max(largest, rewards[i]);
      double sum = 0;
      for (const size_t i : members) {
        weights[i] = std::exp(options_.beta * (rewards[i] - largest));
        sum += weights[i];
      }
      for (const size_t i : members) weights[i] *= static_cast<double>(members.size()) / sum;
    }
    return weights;
  }

 private:
  const RwrOptions options_;
};

class SparseRwrWeighting : public EpochWeighting {
 public:
  explicit SparseRwrWeighting(const SparseRwrOptions& options) : options_(options) {}

  absl::StatusOr<std::vector<double>> Update(absl::Span<const std::string> prompts,
                                             absl::Span<const double> rewards) override {
    DDPO_RETURN_IF_ERROR(CheckRewards(prompts, rewards));
    std::vector<double> weights(rewards.size(), 0);
    if (rewards.empty()) return weights;
    std::vector<size_t> order(rewards.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return rewards[a] > rewards[b]; });
    const double threshold = Threshold(rewards);
    for (size_t rank = 0; rank < order.size(); ++rank) {
      if (rank >= static_cast<size_t>(options_.max_samples)) break;
      if (rewards[order[rank]] >= threshold) weights[order[rank]] = 1;
    }
    return weights;
  }

 private:
  // numpy.percentile(rewards, percentile).
  double Threshold(absl::Span<const double> rewards) const {
    std::vector<double> sorted(rewards.begin(), rewards.end());
    std::sort(sorted.begin(), sorted.end());
    const double position = options_.percentile / 100 * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<size_t>(std::floor(position));
    const size_t above = std::min(below + 1, sorted.size() - 1);
    // Never above the upper neighbour, whatever the rounding.
    return std::min(sorted[above], sorted[below] + (position - static_cast<double>(below)) *
                                                       (sorted[above] - sorted[below]));
  }

  const SparseRwrOptions options_;
};

}  // namespace

std::unique_ptr<SampleWeighting> CreateRwrWeighting(const RwrOptions& options) {
  return std::make_unique<RwrWeighting>(options);
}

std::unique_ptr<SampleWeighting> CreateSparseRwrWeighting(const SparseRwrOptions& options) {
  return std::make_unique<SparseRwrWeighting>(options);
}

}  // namespace ddpo
