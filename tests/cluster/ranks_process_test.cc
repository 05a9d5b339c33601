// Learner ranks as real processes: they repeat bit for bit, whichever of them dies on the way.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/cluster/process_cluster.h"
#include "tests/cluster/sound_metrics.h"

namespace ddpo {
namespace {

using ::testing::AllOf;
using testing::ExpectSoundMetrics;
using ::testing::HasSubstr;
using testing::ProcessCluster;

constexpr int kRanks = 2;
// The learner's exit code when another rank is gone.
constexpr int kRankGone = 3;

std::string Config(const std::string& cluster = "") {
  return absl::StrCat("model: ", testing::SourcePath("tests/goldens/pipelines/tiny"), R"(
reward: jpeg_compressibility
prompts: {list: [a cat, a dog, a horse]}
run: {name: ranks, epochs: 4, seed: 11, save_every: 4}
cluster: {learner_ranks: 2, lease_seconds: 2)",
                      cluster, R"(}
sampling: {num_steps: 3, batch_size: 2, samples_per_epoch: 12}
training: {learning_rate: 3e-3, minibatch_size: 2, clip_range: 1e-3}
checkpoint: {every_epochs: 1}
)");
}

// The bytes that an undisturbed run with one actor gives; computed once.
const std::string& Undisturbed() {
  static const std::string bytes = [] {
    ProcessCluster cluster(Config(), {}, {}, kRanks);
    cluster.StartActor("actor-0");
    for (const char* name : {"learner", "learner-1", "actor-0"}) {
      EXPECT_TRUE(cluster.Wait(name).ok()) << name;
    }
    return cluster.FinalLora();
  }();
  return bytes;
}

TEST(RanksProcessTest, ThreeActorsGiveTheBytesOfOne) {
  ProcessCluster cluster(Config(), {}, {}, kRanks);
  for (const char* actor : {"actor-0", "actor-1", "actor-2"}) cluster.StartActor(actor);
  for (const char* rank : {"learner", "learner-1"}) EXPECT_TRUE(cluster.Wait(rank).ok()) << rank;
  EXPECT_EQ(cluster.FinalLora(), Undisturbed());
  ExpectSoundMetrics(cluster, 4, 12);
}

class LostRankTest : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(EachRank, LostRankTest, ::testing::Values(0, 1));

TEST_P(LostRankTest, AKilledRankIsNamedByTheOtherAndTheGroupGoesOn) {
  const std::string lost = ProcessCluster::RankName(GetParam());
  const std::string other = ProcessCluster::RankName(1 - GetParam());
  ProcessCluster cluster(Config(), {}, {}, kRanks);
  cluster.StartActor("actor-0");
  cluster.WaitForEpochs(2);
  cluster.Kill(lost);
  const ExitStatus status = cluster.Wait(other);
  EXPECT_EQ(status.code, kRankGone) << status.ToString();
  EXPECT_THAT(cluster.Log(other), HasSubstr(absl::StrCat("rank ", GetParam())));
  cluster.StartLearner();
  for (const char* name : {"learner", "learner-1", "actor-0"}) {
    EXPECT_TRUE(cluster.Wait(name).ok()) << name;
  }
  EXPECT_THAT(cluster.Log("actor-0"), HasSubstr("registered again, generation 2"));
  EXPECT_EQ(cluster.FinalLora(), Undisturbed());
  ExpectSoundMetrics(cluster, 4, 12);
}

TEST_P(LostRankTest, ARankThatHangsIsNamedInBoundedTime) {
  const std::string lost = ProcessCluster::RankName(GetParam());
  const std::string other = ProcessCluster::RankName(1 - GetParam());
  ProcessCluster cluster(Config(), {}, {}, kRanks);
  // Without actors the ranks wait for samples, for as long as it takes.
  cluster.WaitForLog(other, "serves on");
  cluster.Signal(lost, SIGSTOP);
  const ExitStatus status = cluster.Wait(other);
  EXPECT_EQ(status.code, kRankGone) << status.ToString();
  EXPECT_THAT(cluster.Log(other), HasSubstr(absl::StrCat("rank ", GetParam())));
}

TEST_P(LostRankTest, ARankThatStopsInAnAllReduceIsNamedInBoundedTime) {
  const std::string lost = ProcessCluster::RankName(GetParam());
  const std::string other = ProcessCluster::RankName(1 - GetParam());
  // Nothing else would end the other's call within this test's time.
  ProcessCluster cluster(Config(", rank_timeout_seconds: 3600"), {}, {}, kRanks, /*start=*/false);
  cluster.SetEnvironment(lost, {"DDPO_STOP_AT=update.all_reduce:2"});
  cluster.StartLearner();
  cluster.StartRewardServer();
  cluster.StartActor("actor-0");
  const ExitStatus status = cluster.Wait(other);
  EXPECT_EQ(status.code, kRankGone) << status.ToString();
  EXPECT_THAT(cluster.Log(other), HasSubstr(absl::StrCat("rank ", GetParam())));
  EXPECT_THAT(cluster.Log(other), HasSubstr("all-reduce 1 failed"));
  cluster.Kill(lost);
  cluster.SetEnvironment(lost, {});
  cluster.StartLearner();
  for (const char* name : {"learner", "learner-1", "actor-0"}) {
    EXPECT_TRUE(cluster.Wait(name).ok()) << name;
  }
  EXPECT_EQ(cluster.FinalLora(), Undisturbed());
}

TEST(RanksProcessTest, ARankZeroThatDiedAfterTheOthersEndedEndsByItself) {
  ProcessCluster cluster(Config(", rank_timeout_seconds: 5"), {}, {}, kRanks, /*start=*/false);
  cluster.SetEnvironment("learner", {"DDPO_KILL_AT=run.end:1"});
  cluster.StartLearner();
  cluster.StartRewardServer();
  cluster.StartActor("actor-0");
  EXPECT_TRUE(cluster.Wait("learner-1").ok());
  EXPECT_EQ(cluster.Wait("learner").signal, SIGKILL);
  EXPECT_EQ(cluster.FinalLora(), Undisturbed());
  cluster.SetEnvironment("learner", {});
  cluster.StartRank(0, absl::StrCat("127.0.0.1:", *FreePort()));
  const ExitStatus status = cluster.Wait("learner");
  EXPECT_TRUE(status.ok()) << status.ToString() << cluster.Log("learner");
  EXPECT_THAT(cluster.Log("learner"),
              HasSubstr("the run is complete, and the other ranks are gone"));
  EXPECT_EQ(cluster.FinalLora(), Undisturbed());
}

}  // namespace
}  // namespace ddpo
