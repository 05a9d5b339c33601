#include "common/base/random.h"

#include <set>
#include <string>

#include "gtest/gtest.h"

namespace ddpo {
namespace {

TEST(RandomTest, SplitMix64GivesThePublishedSequence) {
  // First outputs for seed 0 of the reference implementation, https://prng.di.unimi.it/splitmix64.c
  EXPECT_EQ(SplitMix64(0), 0xe220a8397b1dcdafu);
  EXPECT_EQ(SplitMix64(0x9e3779b97f4a7c15u), 0x6e789e6aa1b965f4u);
}

// A run's images follow from these numbers: another value would break every resumed run.
TEST(RandomTest, DerivedSeedsNeverChange) {
  static_assert(DeriveSeed(42, "sample", 3, 7) == 0x4fa6c295c21a90d8u);
  static_assert(DeriveSeed(0, "x") == 0x3f9e42fa043af541u);
}

TEST(RandomTest, EveryInputChangesTheSeed) {
  std::set<uint64_t> seeds;
  int count = 0;
  for (const uint64_t run : {0, 1, 42}) {
    for (const char* purpose : {"a", "b", "ab", "ba", "aa"}) {
      for (uint64_t a = 0; a < 20; ++a) {
        for (uint64_t b = 0; b < 20; ++b, ++count) {
          seeds.insert(DeriveSeed(run, purpose, a, b));
        }
      }
    }
  }
  EXPECT_EQ(seeds.size(), static_cast<size_t>(count));
}

}  // namespace
}  // namespace ddpo
