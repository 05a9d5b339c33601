#include "tools/report/svg_chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace ddpo {
namespace {

using ::testing::DoubleEq;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(NiceTicks, CoverTheRangeInRoundSteps) {
  EXPECT_THAT(NiceTicks(0, 100, 5), ElementsAre(0, 20, 40, 60, 80, 100));
  EXPECT_THAT(NiceTicks(-1.45, -0.9, 3), ElementsAre(DoubleEq(-1.6), DoubleEq(-1.4), DoubleEq(-1.2),
                                                     DoubleEq(-1.0), DoubleEq(-0.8)));
}

TEST(NiceTicks, OfEpochsAreWholeNumbers) {
  EXPECT_THAT(NiceTicks(0, 3, 12, /*whole=*/true), ElementsAre(0, 1, 2, 3));
}

TEST(NiceTicks, OfASingleValueStillSpanARange) {
  const std::vector<double> ticks = NiceTicks(3, 3, 4);
  EXPECT_LE(ticks.front(), 3);
  EXPECT_GT(ticks.back(), ticks.front());
}

TEST(TickText, HasTheDigitsThatTheStepNeeds) {
  EXPECT_EQ(TickText(-1.4, 0.2), "-1.4");
  EXPECT_EQ(TickText(40, 20), "40");
  EXPECT_EQ(TickText(2e-5, 1e-5), "2e-05");
  EXPECT_EQ(TickText(0, 0.1), "0");
}

TEST(LineChart, SaysWhatItsAxesMean) {
  const std::string svg = LineChart(
      {{0, 1}, {1, 2}}, {.title = "Reward <of> runs", .x_label = "epoch", .y_label = "kB"});
  EXPECT_THAT(svg, HasSubstr("Reward &lt;of&gt; runs"));
  EXPECT_THAT(svg, HasSubstr(">epoch<"));
  EXPECT_THAT(svg, HasSubstr(">kB<"));
  EXPECT_THAT(svg, HasSubstr("polyline"));
}

TEST(LineChart, LeavesOutWhatIsNotANumber) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(LineChart({{0, nan}}, {.title = "t"}), HasSubstr("no data"));
  const std::string svg = LineChart({{0, 1}, {1, nan}, {2, 3}}, {.title = "t"});
  EXPECT_THAT(svg, HasSubstr("polyline"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
}

TEST(LineChart, DrawsABandOnlyWhereThereIsASpread) {
  EXPECT_THAT(LineChart({{0, 1, 0.5}, {1, 2, 0.5}}, {.title = "t"}), HasSubstr("class='band'"));
  EXPECT_THAT(LineChart({{0, 1}, {1, 2}}, {.title = "t"}), Not(HasSubstr("class='band'")));
}

}  // namespace
}  // namespace ddpo
