#include "tools/up/restart_policy.h"

#include <gtest/gtest.h>

namespace ddpo {
namespace {

TEST(RestartPolicy, WaitsLongerForEachDeathInARow) {
  RestartPolicy policy({.first_wait = absl::Seconds(1), .longest_wait = absl::Seconds(3)});
  const absl::Time start = absl::UnixEpoch();
  EXPECT_EQ(policy.NextStart(start), start + absl::Seconds(1));
  EXPECT_EQ(policy.NextStart(start), start + absl::Seconds(2));
  EXPECT_EQ(policy.NextStart(start), start + absl::Seconds(3));
  EXPECT_EQ(policy.NextStart(start), start + absl::Seconds(3));
}

TEST(RestartPolicy, GivesUpOnAProcessThatKeepsDying) {
  RestartPolicy policy({.max_deaths = 2, .window = absl::Seconds(10)});
  const absl::Time start = absl::UnixEpoch();
  EXPECT_TRUE(policy.NextStart(start).has_value());
  EXPECT_TRUE(policy.NextStart(start + absl::Seconds(1)).has_value());
  EXPECT_FALSE(policy.NextStart(start + absl::Seconds(2)).has_value());
}

TEST(RestartPolicy, ForgetsDeathsOfLongAgo) {
  RestartPolicy policy(
      {.first_wait = absl::Seconds(1), .max_deaths = 2, .window = absl::Seconds(10)});
  absl::Time now = absl::UnixEpoch();
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(policy.NextStart(now), now + absl::Seconds(1));
    now += absl::Seconds(11);
  }
}

}  // namespace
}  // namespace ddpo
