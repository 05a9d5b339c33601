// Several learner ranks and actors in one process, with fake models.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/notification.h"
#include "common/base/files.h"
#include "tests/cluster/in_process_cluster.h"
#include "tests/testing/temp_dir.h"

namespace ddpo {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

using testing::HashReward;
using testing::InProcessActor;
using testing::InProcessRanks;
using testing::SmallRun;
using testing::TempDir;

// 8 samples an epoch in 4 tasks.
config::v1::Config OfRanks(int ranks, std::vector<std::string> overrides = {}) {
  overrides.push_back(absl::StrCat("cluster.learner_ranks=", ranks));
  return SmallRun(overrides);
}

std::string FinalLora(const TempDir& dir) {
  const auto bytes = ReadFile(dir / "lora/final.safetensors");
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  return bytes.value_or("");
}

// A whole run with two actors.
std::string RunWith(const config::v1::Config& config, const TempDir& dir) {
  InProcessRanks learner(config, dir.path());
  learner.Start();
  std::vector<std::unique_ptr<InProcessActor>> actors;
  for (const char* name : {"actor-0", "actor-1"}) {
    actors.push_back(std::make_unique<InProcessActor>(learner.address(), name));
  }
  for (auto& actor : actors) EXPECT_TRUE(actor->Join().ok());
  for (const absl::Status& status : learner.Join()) EXPECT_TRUE(status.ok()) << status;
  return FinalLora(dir);
}

std::vector<nlohmann::json> Metrics(const TempDir& dir) {
  std::vector<nlohmann::json> lines;
  for (const auto line :
       absl::StrSplit(ReadFile(dir / "metrics.jsonl").value_or(""), '\n', absl::SkipEmpty())) {
    lines.push_back(nlohmann::json::parse(std::string(line)));
  }
  return lines;
}

TEST(RanksTest, TwoAndFourRanksTrainWhatOneDoes) {
  const TempDir one_dir;
  const std::string one = RunWith(OfRanks(1), one_dir);
  for (const int ranks : {2, 4}) {
    const TempDir dir;
    EXPECT_EQ(RunWith(OfRanks(ranks), dir), one) << ranks;
    const auto lines = Metrics(dir);
    const auto lines_of_one = Metrics(one_dir);
    ASSERT_EQ(lines.size(), 4);
    for (size_t epoch = 0; epoch < lines.size(); ++epoch) {
      const auto& ledger = lines[epoch]["ledger"];
      EXPECT_EQ(ledger["trained"], 8 * (epoch + 1));
      EXPECT_EQ(ledger["received"], 8 * (epoch + 1));
      for (const char* key : {"reward_mean", "reward_std", "reward_details", "samples_total"}) {
        EXPECT_EQ(lines[epoch][key], lines_of_one[epoch][key]) << key;
      }
    }
  }
}

TEST(RanksTest, StalenessIsBoundedOverAllRanks) {
  const TempDir one, two;
  EXPECT_EQ(RunWith(OfRanks(1, {"training.max_staleness=1"}), one),
            RunWith(OfRanks(2, {"training.max_staleness=1"}), two));
  EXPECT_EQ(Metrics(two).back()["staleness_max"], 1);
}

TEST(RanksTest, EachRankTakesItsShare) {
  const TempDir dir;
  InProcessRanks learner(OfRanks(2), dir.path());
  learner.Start();
  InProcessActor actor(learner.address(), "actor-0");
  EXPECT_TRUE(actor.Join().ok());
  for (const absl::Status& status : learner.Join()) EXPECT_TRUE(status.ok()) << status;
  for (const int rank : {0, 1}) {
    // All ranks' numbers, of which half are the rank's own.
    EXPECT_EQ(learner[rank]->Status().ledger().trained(), 32);
    EXPECT_EQ(learner[rank].trainer().staleness().size(), 16);
  }
  EXPECT_EQ(learner[0]->Status().actors(0).samples_delivered(), 32);
  EXPECT_EQ(actor.metrics().tasks["delivered"].Value(), 16);
  EXPECT_EQ(learner[0]->metrics().leases_expired.Value(), 0);
}

TEST(RanksTest, ARunGoesOnWithAnotherNumberOfRanks) {
  const TempDir calm_dir, dir;
  const std::string calm = RunWith(OfRanks(1), calm_dir);
  RunWith(OfRanks(2, {"run.epochs=1"}), dir);
  RunWith(OfRanks(4, {"run.epochs=3"}), dir);
  EXPECT_EQ(RunWith(OfRanks(1), dir), calm);
  EXPECT_EQ(Metrics(dir).back()["ledger"]["trained"], 32);
}

TEST(RanksTest, AStopOfOneRankStopsAllAndLosesNothing) {
  const TempDir calm_dir, dir;
  const std::string calm = RunWith(OfRanks(2), calm_dir);
  {
    InProcessRanks learner(OfRanks(2), dir.path());
    std::atomic<int> batches{0};
    learner.Start();
    InProcessActor actor(learner.address(), "actor-0",
                         [&](absl::Span<const Image> images, absl::Span<const std::string> prompts,
                             const std::function<bool()>& cancelled) {
                           if (++batches == 6) learner[1].Stop();
                           return HashReward(images, prompts, cancelled);
                         });
    EXPECT_TRUE(actor.Join().ok());
    for (const absl::Status& status : learner.Join()) EXPECT_TRUE(absl::IsCancelled(status));
  }
  EXPECT_LT(Metrics(dir).size(), 4);
  EXPECT_EQ(RunWith(OfRanks(2), dir), calm);
}

TEST(RanksTest, AStoppingActorFinishesTheBatchesOfAllRanks) {
  const TempDir dir;
  InProcessRanks learner(OfRanks(2), dir.path());
  learner.Start();
  std::unique_ptr<InProcessActor> actor;
  absl::Notification made;
  actor = std::make_unique<InProcessActor>(
      learner.address(), "actor-0",
      [&](absl::Span<const Image> images, absl::Span<const std::string> prompts,
          const std::function<bool()>& cancelled) {
        made.WaitForNotification();
        // Three of the epoch's four tasks, of which each rank has two.
        while (actor->metrics().samples.Value() < 6) std::this_thread::yield();
        actor->Stop();
        return HashReward(images, prompts, cancelled);
      });
  made.Notify();
  EXPECT_TRUE(actor->Join().ok());
  EXPECT_GE(actor->metrics().tasks["delivered"].Value(), 3);
  EXPECT_EQ(actor->metrics().tasks["failed"].Value(), 0);
  for (int rank = 0; rank < 2; ++rank) learner[rank].Stop();
  learner.Join();
}

TEST(RanksTest, RanksWhoseWeightsDifferFailLoudlyByName) {
  const TempDir dir;
  InProcessRanks learner(OfRanks(4), dir.path());
  learner[2].trainer().ComputeWrongly();
  learner.Start();
  InProcessActor actor(learner.address(), "actor-0");
  for (const absl::Status& status : learner.Join()) {
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("the policy after epoch 0 differs"), HasSubstr("rank 2 of 4 has "),
                      HasSubstr("ranks 0, 1, 3 of 4 have ")));
  }
  EXPECT_EQ(learner[0]->metrics().run_failures["weights"].Value(), 1);
  EXPECT_TRUE(actor.Join().ok());
}

TEST(RanksTest, ARankThatFailsTellsTheOthersWhy) {
  const TempDir dir;
  InProcessRanks learner(OfRanks(2), dir.path());
  learner[1].trainer().FailTraining(absl::InternalError("out of memory"));
  learner.Start();
  InProcessActor actor(learner.address(), "actor-0");
  const std::vector<absl::Status> statuses = learner.Join();
  EXPECT_EQ(statuses[0].code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(statuses[0].message()), HasSubstr("rank 1 is gone: out of memory"));
  EXPECT_EQ(statuses[1].code(), absl::StatusCode::kInternal);
  EXPECT_EQ(learner[0]->metrics().run_failures["ranks"].Value(), 1);
}

TEST(RanksTest, RanksWithOtherConfigurationsDoNotStart) {
  const TempDir dir;
  testing::ThreadRanks group(2);
  group.Run([&](Collective& collective) {
    const testing::InProcessLearner learner(
        OfRanks(2, {absl::StrCat("run.seed=", collective.rank())}), dir.path(), &collective);
    EXPECT_EQ(learner.start_status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(learner.start_status().message()),
                HasSubstr("the configuration differs: rank"));
  });
}

}  // namespace
}  // namespace ddpo
