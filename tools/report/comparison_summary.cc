#include "tools/report/comparison_summary.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/statistics.h"
#include "common/base/status_macros.h"

namespace ddpo {

absl::StatusOr<ComparisonSummary> Summarize(const std::vector<double>& base,
                                            const std::vector<double>& final_rewards) {
  DDPO_ASSIGN_OR_RETURN(PairedTTest test, ComputePairedTTest(base, final_rewards));
  ComparisonSummary summary;
  summary.n = static_cast<int>(base.size());
  summary.base_mean = Mean(base);
  summary.base_std = SampleStddev(base);
  summary.final_mean = Mean(final_rewards);
  summary.final_std = SampleStddev(final_rewards);
  summary.mean_difference = test.mean_difference;
  summary.difference_in_base_stds =
      summary.base_std > 0 ? test.mean_difference / summary.base_std : 0;
  summary.t = test.t;
  summary.p = test.p;
  return summary;
}

nlohmann::ordered_json SummaryToJson(const ComparisonSummary& summary) {
  return {{"n", summary.n},
          {"base_mean", summary.base_mean},
          {"base_std", summary.base_std},
          {"final_mean", summary.final_mean},
          {"final_std", summary.final_std},
          {"mean_difference", summary.mean_difference},
          {"difference_in_base_stds", summary.difference_in_base_stds},
          {"t", summary.t},
          {"p", summary.p}};
}

std::string SummaryText(const ComparisonSummary& summary) {
  return absl::StrFormat(
      "reward on %d held-out pairs: base %.4f ± %.4f, fine-tuned %.4f ± %.4f\n"
      "mean difference %+.4f = %+.2f standard deviations of the base model's images, paired t-test "
      "t = %.2f, p = %.2g",
      summary.n, summary.base_mean, summary.base_std, summary.final_mean, summary.final_std,
      summary.mean_difference, summary.difference_in_base_stds, summary.t, summary.p);
}

}  // namespace ddpo
