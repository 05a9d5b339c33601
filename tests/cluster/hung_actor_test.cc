// Actors that hang or are stopped as real processes: the run does not wait for them, and ends with
// the same bytes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/cluster/process_cluster.h"
#include "tests/cluster/sound_metrics.h"

namespace ddpo {
namespace {

using testing::ExpectSoundMetrics;
using ::testing::HasSubstr;
using testing::ProcessCluster;

constexpr int kEpochs = 3;
constexpr int kSamples = 12;

std::string Config(const std::string& cluster) {
  return absl::StrCat("model: ", testing::SourcePath("tests/goldens/pipelines/tiny"), R"(
reward: jpeg_compressibility
prompts: {list: [a cat, a dog, a horse]}
run: {name: hung_actor, epochs: 3, seed: 11, save_every: 3}
cluster: {)",
                      cluster, R"(}
sampling: {num_steps: 3, batch_size: 2, samples_per_epoch: 12}
training: {learning_rate: 3e-3, minibatch_size: 2, clip_range: 1e-3}
)");
}

// The bytes that an undisturbed run with one actor gives; computed once.
const std::string& Undisturbed() {
  static const std::string bytes = [] {
    ProcessCluster cluster(Config("actors: 1"));
    cluster.StartActor("actor-0");
    EXPECT_TRUE(cluster.Wait("learner").ok());
    return cluster.FinalLora();
  }();
  return bytes;
}

TEST(HungActorTest, AnActorWhoseSamplerHangsEndsAndItsTaskGoesToAnother) {
  // The lease alone would not end within this test's time. A slow machine's denoising steps are
  // shorter than the limit.
  ProcessCluster cluster(Config("lease_seconds: 3600, actor_stall_seconds: 8"));
  cluster.SetEnvironment("actor-0", {"DDPO_HANG_AT=actor.sampling:2"});
  cluster.StartActor("actor-0");
  cluster.WaitForLog("actor-0", "at actor.sampling");
  cluster.StartActor("actor-1");
  const ExitStatus status = cluster.Wait("actor-0");
  EXPECT_EQ(status.code, 1) << status.ToString();
  EXPECT_THAT(cluster.Log("actor-0"), HasSubstr("sampling made no progress for 8s"));
  // As a supervisor does.
  cluster.SetEnvironment("actor-0", {});
  cluster.StartActor("actor-0");
  EXPECT_TRUE(cluster.Wait("learner").ok());
  EXPECT_EQ(cluster.FinalLora(), Undisturbed());
  ExpectSoundMetrics(cluster, kEpochs, kSamples);
}

TEST(HungActorTest, AStoppedActorsTaskGoesToAnotherOnceItsLeaseIsOver) {
  ProcessCluster cluster(Config("lease_seconds: 2"));
  cluster.SetEnvironment("actor-0", {"DDPO_STOP_AT=actor.sampling:2"});
  cluster.StartActor("actor-0");
  cluster.WaitForLog("actor-0", "at actor.sampling");
  cluster.StartActor("actor-1");
  cluster.WaitForEpochs(1);
  // Its task is another's: whatever it still does changes nothing.
  cluster.Signal("actor-0", SIGCONT);
  EXPECT_TRUE(cluster.Wait("learner").ok());
  EXPECT_EQ(cluster.FinalLora(), Undisturbed());
  ExpectSoundMetrics(cluster, kEpochs, kSamples);
}

}  // namespace
}  // namespace ddpo
