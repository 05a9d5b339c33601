// Real processes: whatever happens on the way, the final LoRA has the same bytes.
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "tests/cluster/process_cluster.h"
#include "tests/cluster/sound_metrics.h"

namespace ddpo {
namespace {

using testing::ExpectSoundMetrics;
using testing::ProcessCluster;

constexpr int kEpochs = 4;
constexpr int kSamples = 12;

std::string Config(const std::string& training = "") {
  return absl::StrCat("model: ", testing::SourcePath("tests/goldens/pipelines/tiny"), R"(
reward: jpeg_compressibility
prompts: {list: [a cat, a dog, a horse]}
run: {name: determinism, epochs: 4, seed: 11, save_every: 4}
cluster: {threads_per_process: 1, lease_seconds: 2}
sampling: {num_steps: 3, batch_size: 2, samples_per_epoch: 12}
training: {learning_rate: 3e-3, minibatch_size: 2, clip_range: 1e-3)",
                      training, R"(}
checkpoint: {every_epochs: 1}
)");
}

// The bytes that an undisturbed run with one actor gives; computed once.
const std::string& Undisturbed() {
  static const std::string bytes = [] {
    ProcessCluster cluster(Config());
    cluster.StartActor("actor-0");
    EXPECT_TRUE(cluster.Wait("learner").ok());
    EXPECT_TRUE(cluster.Wait("actor-0").ok());
    return cluster.FinalLora();
  }();
  return bytes;
}

TEST(DeterminismTest, ThreeActorsGiveTheBytesOfOne) {
  ProcessCluster cluster(Config());
  for (const char* actor : {"actor-0", "actor-1", "actor-2"}) cluster.StartActor(actor);
  EXPECT_TRUE(cluster.Wait("learner").ok());
  EXPECT_EQ(cluster.FinalLora(), Undisturbed());
  ExpectSoundMetrics(cluster, kEpochs, kSamples);
}

TEST(DeterminismTest, AKilledActorChangesNothing) {
  ProcessCluster cluster(Config());
  cluster.StartActor("actor-0");
  cluster.WaitForEpochs(1);
  cluster.Kill("actor-0");
  cluster.StartActor("actor-1");
  cluster.WaitForEpochs(2);
  cluster.StartActor("actor-0");  // a new incarnation
  cluster.WaitForEpochs(3);
  cluster.Kill("actor-1");
  EXPECT_TRUE(cluster.Wait("learner").ok());
  EXPECT_TRUE(cluster.Wait("actor-0").ok());
  EXPECT_EQ(cluster.FinalLora(), Undisturbed());
  ExpectSoundMetrics(cluster, kEpochs, kSamples);
}

TEST(DeterminismTest, AKilledRewardServerChangesNothing) {
  ProcessCluster cluster(Config());
  cluster.StartActor("actor-0");
  cluster.StartActor("actor-1");
  cluster.WaitForEpochs(1);
  cluster.Kill("reward");
  cluster.StartRewardServer();
  EXPECT_TRUE(cluster.Wait("learner").ok());
  EXPECT_EQ(cluster.FinalLora(), Undisturbed());
  ExpectSoundMetrics(cluster, kEpochs, kSamples);
}

TEST(DeterminismTest, AKilledLearnerGoesOnFromItsCheckpointWithTheSameActors) {
  ProcessCluster cluster(Config());
  cluster.StartActor("actor-0");
  cluster.WaitForEpochs(2);
  cluster.Kill("learner");
  cluster.StartLearner();
  EXPECT_TRUE(cluster.Wait("learner").ok());
  EXPECT_TRUE(cluster.Wait("actor-0").ok());
  EXPECT_NE(cluster.Log("actor-0").find("registered again, generation 2"), std::string::npos);
  EXPECT_EQ(cluster.FinalLora(), Undisturbed());
  ExpectSoundMetrics(cluster, kEpochs, kSamples);
}

TEST(DeterminismTest, AStoppedLearnerSavesAndGoesOn) {
  ProcessCluster cluster(Config());
  cluster.StartActor("actor-0");
  cluster.WaitForEpochs(1);
  cluster.Signal("learner", SIGTERM);
  EXPECT_TRUE(cluster.Wait("learner").ok());
  EXPECT_TRUE(cluster.Wait("actor-0").ok());  // the learner told it
  cluster.StartLearner();
  cluster.StartActor("actor-0");
  EXPECT_TRUE(cluster.Wait("learner").ok());
  EXPECT_EQ(cluster.FinalLora(), Undisturbed());
  ExpectSoundMetrics(cluster, kEpochs, kSamples);
}

TEST(DeterminismTest, WithStalenessTheResultDoesNotDependOnActorsEither) {
  std::string first;
  for (const int actors : {1, 3}) {
    ProcessCluster cluster(Config(", max_staleness: 1"));
    for (int i = 0; i < actors; ++i) cluster.StartActor(absl::StrCat("actor-", i));
    EXPECT_TRUE(cluster.Wait("learner").ok());
    if (first.empty()) first = cluster.FinalLora();
    EXPECT_EQ(cluster.FinalLora(), first);
    EXPECT_NE(first, Undisturbed());
  }
}

TEST(DeterminismTest, AnActorWithAnotherModelIsRefused) {
  ProcessCluster cluster(Config());
  cluster.StartActor("actor-0", testing::SourcePath("assets/models/emoji-sd"));
  const ExitStatus status = cluster.Wait("actor-0");
  EXPECT_EQ(status.code, 2) << status.ToString();
  EXPECT_NE(cluster.Log("actor-0").find("base model with digest"), std::string::npos);
}

}  // namespace
}  // namespace ddpo
