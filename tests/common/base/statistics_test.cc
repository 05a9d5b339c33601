#include "common/base/statistics.h"

#include <vector>

#include "gtest/gtest.h"

namespace ddpo {
namespace {

TEST(StatisticsTest, TellsPopulationFromSample) {
  const std::vector<double> values = {1, 2, 3, 4};
  EXPECT_DOUBLE_EQ(Mean(values), 2.5);
  EXPECT_DOUBLE_EQ(PopulationStddev(values), 1.118033988749895);  // numpy.std
  EXPECT_DOUBLE_EQ(SampleStddev(values), 1.2909944487358056);     // numpy.std(ddof=1)
}

// Expected values: scipy.stats.ttest_rel(after, before), SciPy 1.17.
TEST(StatisticsTest, AgreesWithScipysPairedTTest) {
  auto test = ComputePairedTTest(std::vector<double>{1, 2, 3, 4, 5},
                                 std::vector<double>{2, 2.5, 3, 6, 5.5});
  ASSERT_TRUE(test.ok()) << test.status();
  EXPECT_NEAR(test->mean_difference, 0.8, 1e-12);
  EXPECT_NEAR(test->t, 2.359071298478354, 1e-9);
  EXPECT_NEAR(test->p, 0.07774164094789986, 1e-9);
}

TEST(StatisticsTest, AgreesWithScipyForNegativeDifferencesAndForTwoPairs) {
  auto negative =
      ComputePairedTTest(std::vector<double>{10.1, 11.4, 9.8, 12.0, 10.7, 11.1, 9.5, 10.9},
                         std::vector<double>{9.7, 11.6, 9.1, 11.2, 10.1, 11.3, 9.0, 10.2});
  ASSERT_TRUE(negative.ok()) << negative.status();
  EXPECT_NEAR(negative->t, -2.9315759485773754, 1e-9);
  EXPECT_NEAR(negative->p, 0.02197495450055259, 1e-9);
  auto two = ComputePairedTTest(std::vector<double>{0, 4}, std::vector<double>{1, 2});
  ASSERT_TRUE(two.ok()) << two.status();
  EXPECT_NEAR(two->t, -0.3333333333333333, 1e-12);
  EXPECT_NEAR(two->p, 0.7951672353008665, 1e-12);
}

TEST(StatisticsTest, ResolvesTinyProbabilities) {
  std::vector<double> before, after;
  for (int i = 0; i < 90; ++i) {
    before.push_back(i % 7);
    after.push_back(i % 7 - 1.0 + 0.01 * (i % 5));
  }
  auto test = ComputePairedTTest(before, after);
  ASSERT_TRUE(test.ok()) << test.status();
  EXPECT_NEAR(test->t, -653.7415391421891, 1e-6);
  // The exponent amplifies the rounding of t and of lgamma.
  EXPECT_NEAR(test->p / 1.255333942443077e-165, 1, 1e-6);
}

TEST(StatisticsTest, HandlesDifferencesWithoutSpread) {
  const std::vector<double> values = {1, 2, 3};
  EXPECT_EQ(ComputePairedTTest(values, values)->p, 1);
  EXPECT_EQ(ComputePairedTTest(values, std::vector<double>{2, 3, 4})->p, 0);
}

TEST(StatisticsTest, HandlesNoneAndOneValue) {
  EXPECT_EQ(Mean({}), 0);
  EXPECT_EQ(PopulationStddev({}), 0);
  EXPECT_EQ(SampleStddev(std::vector<double>{5}), 0);
}

TEST(StatisticsTest, RefusesWhatIsNotPaired) {
  EXPECT_FALSE(ComputePairedTTest(std::vector<double>{1}, std::vector<double>{1}).ok());
  EXPECT_FALSE(ComputePairedTTest(std::vector<double>{1, 2}, std::vector<double>{1}).ok());
}

}  // namespace
}  // namespace ddpo
