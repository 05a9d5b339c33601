#include "learner/task_planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

namespace ddpo {
namespace {

using ::testing::ElementsAre;

config::v1::Config MakeConfig(int samples, int staleness = 0) {
  config::v1::Config config;
  config.mutable_run()->set_seed(7);
  config.mutable_cluster()->set_learner_ranks(2);
  config.mutable_sampling()->set_batch_size(4);
  config.mutable_sampling()->set_samples_per_epoch(samples);
  config.mutable_training()->set_max_staleness(staleness);
  return config;
}

TEST(TaskPlannerTest, SplitsAnEpochIntoBatchesForTheRanksInTurn) {
  const auto tasks = TaskPlanner(MakeConfig(12), {"a cat"}).PlanEpoch(3);
  std::vector<std::string> ids;
  std::vector<int> ranks;
  for (const auto& task : tasks) {
    ids.push_back(task.task_id());
    ranks.push_back(task.rank());
    EXPECT_EQ(task.epoch(), 3);
    EXPECT_EQ(task.prompts_size(), 4);
    EXPECT_EQ(task.seeds_size(), 4);
  }
  EXPECT_THAT(ids, ElementsAre("e00003-b00000", "e00003-b00001", "e00003-b00002"));
  EXPECT_THAT(ranks, ElementsAre(0, 1, 0));
}

TEST(TaskPlannerTest, PlansTheSameEpochAgainAfterAResume) {
  const TaskPlanner before(MakeConfig(12), {"a cat", "a dog"});
  for (int64_t epoch : {0, 1, 2}) (void)before.PlanEpoch(epoch);
  const TaskPlanner after(MakeConfig(12), {"a cat", "a dog"});
  const auto expected = before.PlanEpoch(5);
  const auto tasks = after.PlanEpoch(5);
  ASSERT_EQ(tasks.size(), expected.size());
  for (size_t i = 0; i < tasks.size(); ++i) {
    EXPECT_EQ(tasks[i].SerializeAsString(), expected[i].SerializeAsString());
  }
}

TEST(TaskPlannerTest, SamplesWithTheVersionThatTheBoundAllows) {
  const TaskPlanner planner(MakeConfig(4, /*staleness=*/2), {"a cat"});
  std::vector<int64_t> versions;
  for (int64_t epoch = 0; epoch < 5; ++epoch) {
    versions.push_back(planner.PlanEpoch(epoch)[0].policy_version());
  }
  EXPECT_THAT(versions, ElementsAre(0, 0, 0, 1, 2));
}

TEST(TaskPlannerTest, GivesEverySampleASeedOfItsOwn) {
  const TaskPlanner planner(MakeConfig(64), {"a cat"});
  std::set<uint64_t> seeds;
  for (int64_t epoch = 0; epoch < 10; ++epoch) {
    for (const auto& task : planner.PlanEpoch(epoch)) {
      seeds.insert(task.seeds().begin(), task.seeds().end());
    }
  }
  EXPECT_EQ(seeds.size(), 640);
}

TEST(TaskPlannerTest, DrawsPromptsUniformly) {
  const std::vector<std::string> prompts = {"a cat", "a dog", "a horse", "a fox", "a bee"};
  const TaskPlanner planner(MakeConfig(4000), prompts);
  std::map<std::string, int> counts;
  for (const auto& task : planner.PlanEpoch(0)) {
    for (const std::string& prompt : task.prompts()) ++counts[prompt];
  }
  // 4000 draws of 5: 800 each with a standard deviation of 25; five of them are not chance.
  for (const std::string& prompt : prompts) EXPECT_NEAR(counts[prompt], 800, 125) << prompt;
}

}  // namespace
}  // namespace ddpo
