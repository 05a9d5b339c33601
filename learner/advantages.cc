#include "learner/advantages.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/statistics.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

// Keeps the division finite where all rewards are equal.
constexpr double kStdEpsilon = 1e-6;

struct Moments {
  double mean = 0;
  double std = 0;
};

Moments MomentsOf(absl::Span<const double> values) {
  return {Mean(values), PopulationStddev(values)};
}

}  // namespace

absl::StatusOr<PromptStatistics> PromptStatistics::Create(const AdvantageOptions& options) {
  if (options.buffer_size < 1 || options.min_count < 1) {
    return absl::InvalidArgumentError(absl::StrCat("per-prompt statistics: buffer_size is ",
                                                   options.buffer_size, " and min_count is ",
                                                   options.min_count, ", expected at least 1"));
  }
  if (!(options.clip > 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("per-prompt statistics: clip is ", options.clip, ", expected more than 0"));
  }
  return PromptStatistics(options);
}

void PromptStatistics::Remember(const std::string& prompt, double reward) {
  std::deque<double>& buffer = buffers_[prompt];
  buffer.push_back(reward);
  if (buffer.size() > static_cast<size_t>(options_.buffer_size)) buffer.pop_front();
}

absl::StatusOr<std::vector<double>> PromptStatistics::Update(absl::Span<const std::string> prompts,
                                                             absl::Span<const double> rewards) {
  DDPO_RETURN_IF_ERROR(CheckRewards(prompts, rewards));
  if (rewards.empty()) return std::vector<double>();
  for (size_t i = 0; i < rewards.size(); ++i) Remember(prompts[i], rewards[i]);
  const Moments epoch = MomentsOf(rewards);
  std::map<std::string, Moments> by_prompt;
  std::vector<double> advantages;
  advantages.reserve(rewards.size());
  for (size_t i = 0; i < rewards.size(); ++i) {
    auto [entry, added] = by_prompt.try_emplace(prompts[i], epoch);
    if (added) {
      const std::deque<double>& buffer = buffers_.at(prompts[i]);
      if (buffer.size() >= static_cast<size_t>(options_.min_count)) {
        entry->second = MomentsOf(std::vector<double>(buffer.begin(), buffer.end()));
      }
    }
    const Moments& moments = entry->second;
    const double advantage = (rewards[i] - moments.mean) / (moments.std + kStdEpsilon);
    advantages.push_back(std::clamp(advantage, -options_.clip, options_.clip));
  }
  return advantages;
}

std::string PromptStatistics::SerializeState() const {
  nlohmann::json buffers = nlohmann::json::object();
  for (const auto& [prompt, buffer] : buffers_) buffers[prompt] = buffer;
  // `replace`: a prompt that is not UTF-8 must not end the run at its checkpoint.
  return nlohmann::json{{"rewards", std::move(buffers)}}.dump(
      -1, ' ', false, nlohmann::json::error_handler_t::replace);
}

absl::Status PromptStatistics::RestoreState(const std::string& state) {
  const nlohmann::json parsed = nlohmann::json::parse(state, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object() || !parsed.contains("rewards") || !parsed["rewards"].is_object()) {
    return absl::InvalidArgumentError(
        "per-prompt statistics: the state is not a JSON object with `rewards` by prompt");
  }
  PromptStatistics restored(options_);
  for (const auto& [prompt, rewards] : parsed["rewards"].items()) {
    const bool numbers = rewards.is_array() &&
                         std::all_of(rewards.begin(), rewards.end(),
                                     [](const nlohmann::json& value) { return value.is_number(); });
    if (!numbers) {
      return absl::InvalidArgumentError(absl::StrCat("per-prompt statistics: the rewards of “",
                                                     prompt, "” are not a list of numbers"));
    }
    for (const nlohmann::json& reward : rewards) restored.Remember(prompt, reward.get<double>());
  }
  buffers_ = std::move(restored.buffers_);
  return absl::OkStatus();
}

}  // namespace ddpo
