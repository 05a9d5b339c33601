#include "learner/shuffle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <vector>

namespace ddpo {
namespace {

using ::testing::ElementsAre;

std::vector<int64_t> Identity(int64_t count) {
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  return order;
}

TEST(ShuffleTest, TakesEverySampleOnce) {
  std::vector<int64_t> order = ShuffleSamples({.run_seed = 42, .epoch = 3}, 100);
  EXPECT_NE(order, Identity(100));
  std::sort(order.begin(), order.end());
  EXPECT_EQ(order, Identity(100));
}

TEST(ShuffleTest, DependsOnSeedEpochAndInnerEpochOnly) {
  const ShuffleKey key{.run_seed = 42, .epoch = 3, .inner_epoch = 1};
  EXPECT_EQ(ShuffleSamples(key, 50), ShuffleSamples(key, 50));
  std::set<std::vector<int64_t>> orders = {ShuffleSamples(key, 50)};
  for (const ShuffleKey& other : {ShuffleKey{42, 3, 0}, ShuffleKey{42, 4, 1}, ShuffleKey{43, 3, 1},
                                  ShuffleKey{42 + (uint64_t{1} << 32), 3, 1}}) {
    EXPECT_TRUE(orders.insert(ShuffleSamples(other, 50)).second);
  }
}

// A run that is resumed on another machine goes on with the same orders.
TEST(ShuffleTest, IsTheSameOnEveryMachine) {
  EXPECT_THAT(ShuffleSamples({.run_seed = 42, .epoch = 0}, 8), ElementsAre(1, 5, 2, 6, 4, 0, 7, 3));
}

TEST(ShuffleTest, OrdersEachSamplesTimestepsIndependently) {
  const auto orders = ShuffleTimesteps({.run_seed = 42}, 20, 10, 1.0);
  ASSERT_EQ(orders.size(), 20u);
  std::set<std::vector<int64_t>> distinct;
  for (std::vector<int64_t> order : orders) {
    distinct.insert(order);
    std::sort(order.begin(), order.end());
    EXPECT_EQ(order, Identity(10));
  }
  EXPECT_GT(distinct.size(), 15u);
}

TEST(ShuffleTest, KeepsAFractionOfTheTimestepsButAtLeastOne) {
  const ShuffleKey key{.run_seed = 42};
  const auto all = ShuffleTimesteps(key, 3, 10, 1.0);
  const auto half = ShuffleTimesteps(key, 3, 10, 0.55);
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(half[i].size(), 5u);
    EXPECT_TRUE(std::equal(half[i].begin(), half[i].end(), all[i].begin()));
    EXPECT_EQ(ShuffleTimesteps(key, 3, 10, 0.01)[i].size(), 1u);
  }
}

TEST(ShuffleTest, EveryPositionIsEquallyLikely) {
  // 6,000 draws of 3! orders: each count is 1000 ± 29 (one standard deviation).
  std::map<std::vector<int64_t>, int> counts;
  for (int64_t epoch = 0; epoch < 6000; ++epoch) ++counts[ShuffleSamples({7, epoch, 0}, 3)];
  ASSERT_EQ(counts.size(), 6u);
  for (const auto& [order, count] : counts) EXPECT_NEAR(count, 1000, 5 * 29);
}

}  // namespace
}  // namespace ddpo
