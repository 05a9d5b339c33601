#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace ddpo {

// The final policy against the base model on the same prompts and seeds, in units of the reward.
struct ComparisonSummary {
  int n = 0;
  double base_mean = 0;
  double base_std = 0;  // over the images, with n − 1
  double final_mean = 0;
  double final_std = 0;
  double mean_difference = 0;          // final − base
  double difference_in_base_stds = 0;  // mean_difference / base_std
  double t = 0;                        // paired Student t-test, n − 1 degrees of freedom
  double p = 0;                        // two-sided
};

// `base[i]` and `final[i]` are the rewards of pair i. INVALID_ARGUMENT for fewer than two pairs or
// unequal lengths.
absl::StatusOr<ComparisonSummary> Summarize(const std::vector<double>& base,
                                            const std::vector<double>& final_rewards);

nlohmann::ordered_json SummaryToJson(const ComparisonSummary& summary);

// Two lines for people.
std::string SummaryText(const ComparisonSummary& summary);

}  // namespace ddpo
