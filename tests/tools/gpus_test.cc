#include "tools/up/gpus.h"

#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/temp_dir.h"

namespace ddpo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

config::v1::Config OnGpus(int ranks, int actors, int reward_servers) {
  config::v1::Config config;
  config.mutable_cluster()->set_learner_ranks(ranks);
  config.mutable_cluster()->set_actors(actors);
  config.mutable_cluster()->set_reward_servers(reward_servers);
  config.mutable_training()->set_device("cuda");
  config.mutable_sampling()->set_device("cuda");
  config.mutable_scoring()->set_device("cpu");
  return config;
}

TEST(GpusTest, EachProcessHasItsOwnWhileThereAreEnough) {
  const auto gpus = AssignGpus(OnGpus(2, 1, 1), {"0", "1", "2", "3"});
  ASSERT_TRUE(gpus.ok()) << gpus.status();
  EXPECT_THAT(*gpus, UnorderedElementsAre(Pair("learner-0", "0"), Pair("learner-1", "1"),
                                          Pair("actor-0", "2")));
}

TEST(GpusTest, ProcessesShareGpusWhereThereAreMoreOfThem) {
  config::v1::Config config = OnGpus(2, 3, 1);
  config.mutable_scoring()->set_device("cuda");
  const auto gpus = AssignGpus(config, {"GPU-a", "GPU-b"});
  ASSERT_TRUE(gpus.ok()) << gpus.status();
  EXPECT_THAT(*gpus,
              UnorderedElementsAre(Pair("learner-0", "GPU-a"), Pair("learner-1", "GPU-b"),
                                   Pair("actor-0", "GPU-a"), Pair("actor-1", "GPU-b"),
                                   Pair("actor-2", "GPU-a"), Pair("reward-server-0", "GPU-b")));
}

TEST(GpusTest, TwoRanksDoNotShareOne) {
  const auto gpus = AssignGpus(OnGpus(3, 1, 1), {"0", "1"});
  EXPECT_EQ(gpus.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(gpus.status().message()), HasSubstr("cluster.learner_ranks: 3 ranks"));
}

TEST(GpusTest, WithoutGpusNothingIsAssigned) {
  EXPECT_THAT(AssignGpus(OnGpus(3, 1, 1), {}).value(), IsEmpty());
}

TEST(GpusTest, TheUsersChoiceCountsAndOtherwiseTheDrivers) {
  const ddpo::testing::TempDir driver;
  std::filesystem::create_directory(driver.path() + "/0000:01:00.0");
  std::filesystem::create_directory(driver.path() + "/0000:02:00.0");
  unsetenv("CUDA_VISIBLE_DEVICES");
  EXPECT_THAT(VisibleGpus(driver.path()), ElementsAre("0", "1"));
  EXPECT_THAT(VisibleGpus(driver.path() + "/absent"), IsEmpty());
  setenv("CUDA_VISIBLE_DEVICES", "3, GPU-12,-1,0", 1);
  EXPECT_THAT(VisibleGpus(driver.path()), ElementsAre("3", "GPU-12"));
  setenv("CUDA_VISIBLE_DEVICES", "", 1);
  EXPECT_THAT(VisibleGpus(driver.path()), IsEmpty());
  unsetenv("CUDA_VISIBLE_DEVICES");
}

}  // namespace
}  // namespace ddpo
