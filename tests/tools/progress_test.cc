#include "tools/up/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace ddpo {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

std::vector<nlohmann::json> TwoEpochs() {
  return {{{"epoch", 0}, {"reward_mean", -1.5}, {"samples_per_second", 10.0}},
          {{"epoch", 1},
           {"reward_mean", -1.25},
           {"samples_per_second", 10.0},
           {"approx_kl", 2e-5},
           {"clip_fraction", 0.25}}};
}

TEST(Progress, CountsTheRewardFromTheStartAndTheTimeFromTheSpeed) {
  const Progress progress = ProgressFromMetrics(TwoEpochs(), 12, 64);
  ASSERT_TRUE(progress.epoch.has_value());
  EXPECT_EQ(progress.epochs_done, 2);
  EXPECT_DOUBLE_EQ(progress.epoch->reward_change, 0.25);
  EXPECT_DOUBLE_EQ(progress.epoch->seconds_left, 10 * 6.4);
}

TEST(Progress, TextNamesEveryNumber) {
  Progress progress = ProgressFromMetrics(TwoEpochs(), 12, 64);
  progress.phase = "sampling";
  progress.phase_done = 16;
  progress.phase_total = 64;
  EXPECT_EQ(ProgressText(progress),
            "epoch 2/12 │ reward -1.250 (+0.250) │ 10.0 images/s │ KL 2.0e-05 │ clipped 25% │ "
            "1:04 left │ sampling 16/64");
}

TEST(Progress, OfARunWithoutEpochsNeedsNoMetrics) {
  EXPECT_EQ(ProgressText(ProgressFromMetrics({}, 12, 64)), "epoch 0/12");
}

TEST(Progress, TakesNullForAnUnknownNumber) {
  const Progress progress = ProgressFromMetrics({{{"epoch", 0}, {"reward_mean", nullptr}}}, 12, 64);
  EXPECT_EQ(progress.epochs_done, 1);
}

TEST(ProgressDisplay, PrintsALinePerEpochWhereThereIsNoTerminal) {
  std::ostringstream out;
  ProgressDisplay display(out, /*columns=*/0);
  Progress progress = ProgressFromMetrics({}, 12, 64);
  display.Show(progress);
  EXPECT_THAT(out.str(), IsEmpty());
  progress = ProgressFromMetrics(TwoEpochs(), 12, 64);
  progress.phase = "training";
  display.Show(progress);
  const std::string once = out.str();
  progress.phase = "sampling";
  display.Show(progress);
  EXPECT_EQ(out.str(), once);
  EXPECT_THAT(once, EndsWith("left\n"));
}

TEST(ProgressDisplay, RedrawsOneLineOnATerminalAndKeepsWithinItsWidth) {
  std::ostringstream out;
  ProgressDisplay display(out, /*columns=*/20);
  display.Show(ProgressFromMetrics(TwoEpochs(), 12, 64));
  EXPECT_EQ(out.str(), "\r\033[Kepoch 2/12 │ reward");
  EXPECT_THAT(out.str(), Not(HasSubstr("\n")));
  display.Note("actor-0 died");
  EXPECT_THAT(out.str(), HasSubstr("\r\033[Kactor-0 died\n"));
  display.Finish();
  EXPECT_THAT(out.str(), EndsWith("\n"));
}

}  // namespace
}  // namespace ddpo
