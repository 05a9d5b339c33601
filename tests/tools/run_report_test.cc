#include "tools/report/run_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "common/base/files.h"

namespace ddpo {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

Image Plain(uint8_t red, uint8_t green, uint8_t blue) {
  Image image{.width = 32, .height = 32, .rgb = {}};
  for (int i = 0; i < 32 * 32; ++i) image.rgb.insert(image.rgb.end(), {red, green, blue});
  return image;
}

// A run of 60 epochs whose reward rises, with 24 pairs and 7 checkpoints.
RunReport CannedReport() {
  RunReport report;
  report.name = "demo <1>";
  report.model = "emoji-sd";
  report.reward = "jpeg_compressibility";
  report.config_yaml = "run: {name: demo}\n";
  for (int epoch = 0; epoch < 60; ++epoch) {
    report.metrics.push_back({{"epoch", epoch},
                              {"samples_total", 64 * (epoch + 1)},
                              {"reward_mean", -1.4 + 0.3 * epoch / 60 + 0.03 * std::sin(epoch)},
                              {"reward_std", 0.15},
                              {"approx_kl", 2e-6 * (2 + std::sin(epoch * 1.7))},
                              {"clip_fraction", 0.3 + 0.1 * std::sin(epoch * 0.9)},
                              {"samples_per_second", 14 + std::sin(epoch * 2.3)},
                              {"logprob_abs_diff_max", 0.0},
                              {"grad_norm", nullptr}});
  }
  report.summary = ComparisonSummary{.n = 90,
                                     .base_mean = -1.4,
                                     .base_std = 0.2,
                                     .final_mean = -1.1,
                                     .final_std = 0.15,
                                     .mean_difference = 0.3,
                                     .difference_in_base_stds = 1.5,
                                     .t = 14.2,
                                     .p = 3e-25};
  for (int i = 0; i < 24; ++i) {
    const auto shade = static_cast<uint8_t>(10 * i);
    report.pairs.push_back({.prompt = i == 0 ? "a <cat>" : "a dog",
                            .seed = static_cast<uint64_t>(i),
                            .before = Plain(shade, 90, 200),
                            .after = Plain(shade, 200, 90),
                            .reward_before = -1.4,
                            .reward_after = -1.1});
  }
  for (int epoch = 0; epoch <= 60; epoch += 10) {
    report.grids.push_back({epoch, std::vector<Image>(24, Plain(200, epoch * 4, 60))});
  }
  return report;
}

TEST(RunReport, NeedsNothingFromTheNetwork) {
  absl::StatusOr<std::string> html = RenderReport(CannedReport());
  ASSERT_TRUE(html.ok());
  EXPECT_THAT(*html, AllOf(Not(HasSubstr("http://")), Not(HasSubstr("https://")),
                           Not(HasSubstr("<script src")), Not(HasSubstr("<link"))));
  EXPECT_THAT(*html, HasSubstr("src='data:image/png;base64,iVBOR"));
}

TEST(RunReport, ShowsResultChartsImagesAndConfig) {
  absl::StatusOr<std::string> html = RenderReport(CannedReport());
  ASSERT_TRUE(html.ok());
  EXPECT_THAT(*html, AllOf(HasSubstr("+1.50 σ"), HasSubstr("n = 90 pairs"), HasSubstr("3e-25"),
                           HasSubstr("Share of clipped ratios"), HasSubstr("Before and after"),
                           HasSubstr("epoch 60"), HasSubstr("run: {name: demo}")));
}

TEST(RunReport, EscapesWhatItIsGiven) {
  absl::StatusOr<std::string> html = RenderReport(CannedReport());
  ASSERT_TRUE(html.ok());
  EXPECT_THAT(*html, AllOf(HasSubstr("a &lt;cat&gt;"), Not(HasSubstr("a <cat>")),
                           HasSubstr("demo &lt;1&gt;")));
}

TEST(RunReport, OfARunWithoutEpochsIsStillAPage) {
  RunReport report;
  report.name = "empty";
  absl::StatusOr<std::string> html = RenderReport(report);
  ASSERT_TRUE(html.ok());
  EXPECT_THAT(*html, AllOf(HasSubstr("</html>"), Not(HasSubstr("Before and after"))));
}

TEST(Summary, IsThePairedComparisonInStandardDeviationsOfTheBase) {
  absl::StatusOr<ComparisonSummary> summary = Summarize({1, 2, 3, 4}, {3, 3.5, 5, 6.5});
  ASSERT_TRUE(summary.ok());
  EXPECT_EQ(summary->n, 4);
  EXPECT_DOUBLE_EQ(summary->base_mean, 2.5);
  // numpy.std([1, 2, 3, 4], ddof=1) and scipy.stats.ttest_rel, in double precision.
  EXPECT_NEAR(summary->base_std, 1.2909944487358056, 1e-12);
  EXPECT_DOUBLE_EQ(summary->mean_difference, 2.0);
  EXPECT_NEAR(summary->difference_in_base_stds, 2.0 / 1.2909944487358056, 1e-12);
  EXPECT_NEAR(summary->t, 9.797958971132713, 1e-9);
  EXPECT_NEAR(summary->p, 0.0022595035797782, 1e-9);
}

TEST(Summary, RefusesFewerThanTwoPairs) {
  EXPECT_EQ(Summarize({1}, {2}).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace ddpo
