#include "learner/rank_exchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "learner/epoch_rewards.h"
#include "tests/learner/collective/run_ranks.h"
#include "tests/testing/thread_ranks.h"

namespace ddpo {
namespace {

using ::ddpo::testing::RunRanks;
using ::ddpo::testing::ThreadRanks;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// More than the ranks' store takes at once, and no multiple of a part.
constexpr size_t kLarge = (size_t{9} << 20) + 17;

TrainingSample Sample(const std::string& prompt, double reward) {
  TrainingSample sample;
  sample.task_id = absl::StrCat("e0-b", reward);
  sample.prompt = prompt;
  sample.reward = reward;
  return sample;
}

TEST(RankExchangeTest, GathersValuesThatAreTooLargeForTheStore) {
  RunRanks(2, {}, [](Collective& collective) {
    const std::string mine = collective.rank() == 0 ? "small" : std::string(kLarge, '1');
    const auto values = GatherInParts(collective, mine);
    ASSERT_TRUE(values.ok()) << values.status();
    EXPECT_THAT(*values, ElementsAre("small", std::string(kLarge, '1')));
    // The ranks are in step afterwards.
    const auto next = GatherInParts(collective, absl::StrCat(collective.rank()));
    ASSERT_TRUE(next.ok()) << next.status();
    EXPECT_THAT(*next, ElementsAre("0", "1"));
  });
}

TEST(RankExchangeTest, GathersTheRewardsOfManySamples) {
  RunRanks(2, {}, [](Collective& collective) {
    const auto rewards =
        GatherRewards(collective, {Sample(std::string(kLarge, 'x'), collective.rank())}, "");
    ASSERT_TRUE(rewards.ok()) << rewards.status();
    EXPECT_THAT(rewards->rewards, ElementsAre(0, 1));
    EXPECT_THAT(rewards->mine, ElementsAre(collective.rank()));
  });
}

TEST(RankExchangeTest, BroadcastsWhatRankZeroHas) {
  for (const std::string& bytes : {std::string(), std::string("a\nb"), std::string(kLarge, '0')}) {
    ThreadRanks(3).Run([&](Collective& collective) {
      const auto received =
          BroadcastFromRankZero(collective, collective.rank() == 0 ? bytes : "not looked at");
      ASSERT_TRUE(received.ok()) << received.status();
      EXPECT_TRUE(*received == bytes) << received->size();
    });
  }
}

TEST(RankExchangeTest, RanksTakeRewardsOfOneScorerOnly) {
  ThreadRanks(3).Run([](Collective& collective) {
    const std::vector<std::string> digests = {"", "d1", "d2"};
    const auto rewards =
        GatherRewards(collective, {Sample("a cat", collective.rank())}, digests[collective.rank()]);
    EXPECT_EQ(rewards.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(rewards.status().message()),
                AllOf(HasSubstr("rank 1 has rewards of a scorer with digest `d1`"),
                      HasSubstr("rank 2 of one with `d2`")));
  });
}

TEST(RankExchangeTest, ARankHearsOfTheOthersScorer) {
  ThreadRanks(3).Run([](Collective& collective) {
    const auto rewards = GatherRewards(collective, {Sample("a cat", collective.rank())},
                                       collective.rank() == 1 ? "d1" : "");
    ASSERT_TRUE(rewards.ok()) << rewards.status();
    EXPECT_EQ(rewards->scorer_digest, "d1");
  });
}

}  // namespace
}  // namespace ddpo
