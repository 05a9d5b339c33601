#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
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
#include "common/rpc/channel.h"
#include "learner/non_finite.h"
#include "tests/cluster/in_process_cluster.h"
#include "tests/testing/failing_file_system.h"
#include "tests/testing/grpc_probe.h"
#include "tests/testing/temp_dir.h"

namespace ddpo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using testing::FailingFileSystem;
using testing::HashingTrainer;
using testing::HashReward;
using testing::InProcessActor;
using testing::InProcessLearner;
using testing::SmallRun;
using testing::TempDir;

std::string FinalLora(const TempDir& dir) {
  const auto bytes = ReadFile(dir / "lora/final.safetensors");
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  return bytes.value_or("");
}

std::vector<nlohmann::json> Metrics(const TempDir& dir) {
  std::vector<nlohmann::json> lines;
  const std::string text = ReadFile(dir / "metrics.jsonl").value_or("");
  for (const auto line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    lines.push_back(nlohmann::json::parse(std::string(line)));
  }
  return lines;
}

// Without what depends on the clock or on who delivered what how often.
std::vector<nlohmann::json> TimelessMetrics(const TempDir& dir) {
  std::vector<nlohmann::json> lines = Metrics(dir);
  for (nlohmann::json& line : lines) {
    for (const char* key :
         {"seconds", "elapsed_seconds", "samples_per_second", "actor_seconds", "ledger"}) {
      EXPECT_TRUE(line.contains(key)) << key;
      line.erase(key);
    }
  }
  return lines;
}

void ExpectBalanced(const cluster::v1::Ledger& ledger, int64_t trained) {
  int64_t sum = ledger.trained() + ledger.buffered();
  for (const auto& [reason, count] : ledger.dropped()) sum += count;
  EXPECT_EQ(ledger.received(), sum);
  EXPECT_EQ(ledger.trained(), trained);
}

// A whole run with that many actors.
std::string RunWith(int actors, const config::v1::Config& config, const TempDir& dir) {
  InProcessLearner learner(config, dir.path());
  EXPECT_TRUE(learner.start_status().ok()) << learner.start_status();
  // The actors register first: a run that has nothing left to train ends as soon as it starts.
  std::vector<std::unique_ptr<InProcessActor>> processes;
  for (int i = 0; i < actors; ++i) {
    processes.push_back(
        std::make_unique<InProcessActor>(learner->address(), absl::StrCat("actor-", i)));
  }
  learner.Start();
  for (auto& actor : processes) EXPECT_TRUE(actor->Join().ok());
  EXPECT_TRUE(learner.Join().ok());
  ExpectBalanced(learner->Status().ledger(),
                 config.run().epochs() * config.sampling().samples_per_epoch());
  return FinalLora(dir);
}

// One sample through a stream of its own, as an actor would send it.
absl::Status DeliverOne(LearnerClient& client, const cluster::v1::TrajectorySample& sample,
                        cluster::v1::SampleAck* ack) {
  return client.Deliver("", {&sample}, absl::Seconds(10),
                        [ack](const cluster::v1::SampleAck& answer) { *ack = answer; });
}

std::unique_ptr<LearnerClient> Client(const std::string& address, const std::string& actor_id,
                                      uint64_t incarnation = 1000) {
  LearnerClientOptions options;
  options.address = address;
  options.actor_id = actor_id;
  options.incarnation = incarnation;
  return *LearnerClient::Create(options);
}

// A rollout for a leased task, made by hand.
std::vector<cluster::v1::TrajectorySample> MakeSamples(const cluster::v1::Lease& lease,
                                                       uint64_t generation,
                                                       const std::string& policy) {
  Rollout rollout;
  rollout.task = lease.task();
  rollout.lease_id = lease.lease_id();
  rollout.generation = generation;
  testing::HashingSampler sampler;
  EXPECT_TRUE(sampler.SetPolicy(policy).ok());
  const std::vector<std::string> prompts(lease.task().prompts().begin(),
                                         lease.task().prompts().end());
  rollout.batch = *sampler.Sample(
      prompts, {lease.task().seeds().begin(), lease.task().seeds().end()}, [] { return false; });
  std::vector<Image> images;
  for (const auto& sample : rollout.batch.samples) images.push_back(sample.image);
  rollout.rewards = *HashReward(images, prompts, {});
  return ToSamples(&rollout, "by-hand");
}

TEST(InProcessClusterTest, GivesTheSameBytesForOneActorAndForThree) {
  const TempDir one, three;
  EXPECT_EQ(RunWith(1, SmallRun(), one), RunWith(3, SmallRun(), three));
  EXPECT_EQ(TimelessMetrics(one), TimelessMetrics(three));
}

TEST(InProcessClusterTest, AnotherSeedGivesOtherBytes) {
  const TempDir one, other;
  EXPECT_NE(RunWith(1, SmallRun(), one), RunWith(1, SmallRun({"run.seed=8"}), other));
}

TEST(InProcessClusterTest, WritesTheRunsFolder) {
  const TempDir dir;
  RunWith(1, SmallRun(), dir);
  EXPECT_THAT(*FileSystem::Real()->List(dir / "lora"),
              ElementsAre("epoch_0000.safetensors", "epoch_0002.safetensors",
                          "epoch_0004.safetensors", "final.safetensors"));
  EXPECT_EQ(FinalLora(dir), *ReadFile(dir / "lora/epoch_0004.safetensors"));
  std::vector<int> epochs;
  for (const auto& line : Metrics(dir)) {
    epochs.push_back(line["epoch"]);
    EXPECT_EQ(line["reward_details"]["parts"], 1.0);
    EXPECT_GT(line["actor_seconds"]["denoise"], 0.0);
    for (const char* key : {"policy_version", "samples_total", "reward_mean", "reward_std", "loss",
                            "approx_kl", "clip_fraction", "ratio_mean", "logprob_abs_diff_max",
                            "grad_norm", "samples_per_second", "seconds", "ledger"}) {
      EXPECT_TRUE(line.contains(key)) << key;
    }
  }
  EXPECT_THAT(epochs, ElementsAre(0, 1, 2, 3));
}

TEST(InProcessClusterTest, StalenessIsBoundedAndItsResultDoesNotDependOnActors) {
  for (const int bound : {0, 1, 2}) {
    const config::v1::Config config =
        SmallRun({absl::StrCat("training.max_staleness=", bound), "run.epochs=6"});
    const TempDir one_dir, three_dir;
    const std::string one = RunWith(1, config, one_dir);
    EXPECT_EQ(one, RunWith(3, config, three_dir)) << "max_staleness " << bound;
    std::vector<int> staleness;
    for (const auto& line : Metrics(one_dir)) staleness.push_back(line["staleness_max"]);
    std::vector<int> expected;
    for (int epoch = 0; epoch < 6; ++epoch) expected.push_back(std::min(epoch, bound));
    EXPECT_EQ(staleness, expected);
  }
}

TEST(InProcessClusterTest, KilledActorsChangeNothing) {
  const TempDir calm_dir, stormy_dir;
  const std::string calm = RunWith(1, SmallRun(), calm_dir);
  InProcessLearner learner(SmallRun(), stormy_dir.path());
  learner.Start();
  // Each of these dies in the middle of getting its first rewards.
  for (int i = 0; i < 3; ++i) {
    absl::Notification scoring;
    InProcessActor doomed(
        learner->address(), "actor-0",
        [&](absl::Span<const Image>, absl::Span<const std::string>,
            const std::function<bool()>& cancelled) -> absl::StatusOr<std::vector<RewardResult>> {
          if (!scoring.HasBeenNotified()) scoring.Notify();
          while (!cancelled()) std::this_thread::yield();
          return absl::CancelledError("killed");
        });
    scoring.WaitForNotification();
    doomed.Kill();
  }
  InProcessActor survivor(learner->address(), "actor-0");
  EXPECT_TRUE(survivor.Join().ok());
  EXPECT_TRUE(learner.Join().ok());
  EXPECT_EQ(FinalLora(stormy_dir), calm);
}

TEST(InProcessClusterTest, ASampleThatComesTwiceCountsOnce) {
  const TempDir calm_dir, dir;
  const std::string calm = RunWith(1, SmallRun(), calm_dir);
  InProcessLearner learner(SmallRun(), dir.path());
  learner.Start();
  const auto client = Client(learner->address(), "by-hand");
  ASSERT_TRUE(client->Register("model").ok());
  const auto lease = client->LeaseTask(absl::Seconds(10));
  ASSERT_TRUE(lease.ok() && lease->has_lease()) << lease.status();
  const auto policy = client->FetchPolicy(0);
  ASSERT_TRUE(policy.ok()) << policy.status();
  const auto samples = MakeSamples(lease->lease(), client->generation(), policy->bytes);
  cluster::v1::SampleAck ack;
  ASSERT_TRUE(DeliverOne(*client, samples[0], &ack).ok());
  EXPECT_EQ(ack.outcome(), cluster::v1::SampleAck::TAKEN);
  // The stream broke before its ack was read: a new stream sends it again, and the rest.
  ASSERT_TRUE(DeliverOne(*client, samples[0], &ack).ok());
  EXPECT_EQ(ack.outcome(), cluster::v1::SampleAck::DUPLICATE);
  ASSERT_TRUE(DeliverOne(*client, samples[1], &ack).ok());
  EXPECT_EQ(ack.outcome(), cluster::v1::SampleAck::TAKEN);
  InProcessActor actor(learner->address(), "actor-0");
  EXPECT_TRUE(actor.Join().ok());
  EXPECT_TRUE(learner.Join().ok());
  EXPECT_EQ(FinalLora(dir), calm);
  EXPECT_EQ(learner->Status().ledger().dropped().at("duplicate"), 1);
}

TEST(InProcessClusterTest, AStoppedRunGoesOnAsIfItHadNeverStopped) {
  for (const int staleness : {0, 1, 2}) {
    const config::v1::Config config =
        SmallRun({absl::StrCat("training.max_staleness=", staleness), "run.epochs=5"});
    const TempDir calm_dir, dir;
    const std::string calm = RunWith(1, config, calm_dir);
    for (uint64_t start = 1; start <= 3; ++start) {
      InProcessLearner learner(config, dir.path());
      ASSERT_TRUE(learner.start_status().ok()) << learner.start_status();
      EXPECT_EQ(learner->generation(), start);
      // Rewards of two epochs' worth of batches, then the learner is asked to stop.
      std::atomic<int> batches{0};
      InProcessActor actor(
          learner->address(), "actor-0",
          [&](absl::Span<const Image> images, absl::Span<const std::string> prompts,
              const std::function<bool()>& cancelled) {
            if (++batches == 7 && start < 3) learner.Stop();
            return HashReward(images, prompts, cancelled);
          });
      const absl::Status status = learner.RunToTheEnd();
      EXPECT_EQ(status.code(), start < 3 ? absl::StatusCode::kCancelled : absl::StatusCode::kOk);
      EXPECT_TRUE(actor.Join().ok());
    }
    EXPECT_EQ(FinalLora(dir), calm) << "max_staleness " << staleness;
    EXPECT_EQ(TimelessMetrics(dir), TimelessMetrics(calm_dir));
  }
}

// Whoever looks at it would take the old one for the end of the longer run.
TEST(InProcessClusterTest, ARunThatGetsMoreEpochsHasNoFinalLoraUntilTheyAreDone) {
  const TempDir calm_dir, dir;
  const std::string calm = RunWith(1, SmallRun(), calm_dir);
  RunWith(1, SmallRun({"run.epochs=2"}), dir);
  ASSERT_TRUE(FileSystem::Real()->Exists(dir / "lora/final.safetensors"));
  {
    InProcessLearner learner(SmallRun(), dir.path());
    learner.Stop();
    EXPECT_EQ(learner.RunToTheEnd().code(), absl::StatusCode::kCancelled);
  }
  EXPECT_FALSE(FileSystem::Real()->Exists(dir / "lora/final.safetensors"));
  EXPECT_EQ(RunWith(1, SmallRun(), dir), calm);
}

TEST(InProcessClusterTest, ACompleteRunKeepsItsFinalLoraWhileEpochsComeAgain) {
  const TempDir dir;
  const std::string last = RunWith(1, SmallRun({"run.epochs=2"}), dir);
  ASSERT_TRUE(
      WriteFileAtomically(dir / "checkpoints/epoch_00002/trainer.safetensors", "torn").ok());
  {
    InProcessLearner learner(SmallRun({"run.epochs=2"}), dir.path());
    learner.Stop();
    EXPECT_EQ(learner.RunToTheEnd().code(), absl::StatusCode::kCancelled);
  }
  EXPECT_EQ(FinalLora(dir), last);
}

TEST(InProcessClusterTest, ADamagedCheckpointCostsEpochsAndChangesNothing) {
  const TempDir calm_dir, dir;
  const std::string calm = RunWith(1, SmallRun(), calm_dir);
  RunWith(1, SmallRun({"run.epochs=3"}), dir);
  ASSERT_TRUE(
      WriteFileAtomically(dir / "checkpoints/epoch_00003/trainer.safetensors", "torn").ok());
  // Goes on from the second epoch's checkpoint; the third epoch comes again.
  EXPECT_EQ(RunWith(1, SmallRun(), dir), calm);
  EXPECT_EQ(TimelessMetrics(dir), TimelessMetrics(calm_dir));
}

TEST(InProcessClusterTest, ADiskThatFillsUpFailsTheRunWhichGoesOnOnceThereIsSpace) {
  const TempDir calm_dir;
  const std::string calm = RunWith(1, SmallRun(), calm_dir);
  bool ended_well = false;
  for (int operations = 1; !ended_well; operations += 7) {
    const TempDir dir;
    FailingFileSystem file_system(operations);
    {
      InProcessLearner learner(SmallRun(), dir.path(), &file_system);
      ASSERT_TRUE(learner.start_status().ok()) << learner.start_status();
      const InProcessActor actor(learner->address(), "actor-0");
      const absl::Status status = learner.RunToTheEnd();
      ended_well = status.ok();
      EXPECT_EQ(ended_well, !file_system.failed());
      if (!ended_well) {
        EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
        EXPECT_THAT(std::string(status.message()), HasSubstr(dir.path()));
      }
    }
    EXPECT_EQ(RunWith(1, SmallRun(), dir), calm) << "after " << operations << " operations";
    EXPECT_EQ(TimelessMetrics(dir), TimelessMetrics(calm_dir));
  }
}

TEST(InProcessClusterTest, CountsTheTimeInWhichThereIsNoActor) {
  const TempDir dir;
  InProcessLearner learner(SmallRun(), dir.path());
  learner.Start();
  while (learner->metrics().idle_seconds["actors"].Value() == 0) std::this_thread::yield();
  const InProcessActor actor(learner->address(), "actor-0");
  EXPECT_TRUE(learner.Join().ok());
}

TEST(InProcessClusterTest, RefusesMessagesOfAnOlderGeneration) {
  const TempDir dir;
  InProcessLearner learner(SmallRun(), dir.path());
  const auto client = Client(learner->address(), "actor-0");
  cluster::v1::TrajectorySample sample;
  sample.set_generation(learner->generation() - 1);
  cluster::v1::SampleAck ack;
  EXPECT_EQ(DeliverOne(*client, sample, &ack).code(), absl::StatusCode::kFailedPrecondition);
  // Not registered: the client's generation is 0.
  EXPECT_EQ(client->LeaseTask(absl::Seconds(1)).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(client->RenewLeases({1}).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(client->FetchPolicy(0).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(client->AckPolicy(0, "x").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(client->Subscribe(-1, absl::Seconds(5), [](const Policy&) {}).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(learner->Status().ledger().dropped().at("stale_generation"), 1);
}

TEST(InProcessClusterTest, SendsPoliciesInChunksAndChecksTheDigestOfAcks) {
  const TempDir dir;
  InProcessLearner learner(SmallRun(), dir.path());
  learner.trainer().PadPolicies((3 << 20) + 17);  // four chunks of 1 MiB
  learner.Start();
  const auto client = Client(learner->address(), "actor-0");
  ASSERT_TRUE(client->Register("model").ok());
  std::string subscribed;
  EXPECT_FALSE(client
                   ->Subscribe(-1, absl::Seconds(30),
                               [&](const Policy& policy) {
                                 subscribed = policy.bytes;
                                 client->CancelStreams();
                               })
                   .ok());
  const auto policy = client->FetchPolicy(0);
  ASSERT_TRUE(policy.ok()) << policy.status();
  EXPECT_EQ(policy->bytes.size(), std::string("policy fresh").size() + (3 << 20) + 17);
  EXPECT_EQ(policy->bytes, subscribed);
  EXPECT_EQ(client->FetchPolicy(1).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(client->AckPolicy(0, "another digest").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(learner->Status().actors(0).policy_version(), -1);
  EXPECT_TRUE(client->AckPolicy(0, policy->sha256).ok());
  EXPECT_EQ(learner->Status().actors(0).policy_version(), 0);
}

// Rewards that never come.
RewardFunction FailsWith(const absl::Status& error) {
  return [error](absl::Span<const Image>, absl::Span<const std::string>,
                 const std::function<bool()>&) -> absl::StatusOr<std::vector<RewardResult>> {
    return error;
  };
}

TEST(InProcessClusterTest, ATaskThatFailsTooOftenFailsTheRunWithTheReason) {
  const TempDir dir;
  InProcessLearner learner(SmallRun({"cluster.max_task_attempts=3"}), dir.path());
  learner.Start();
  InProcessActor actor(learner->address(), "actor-0",
                       FailsWith(absl::NotFoundError("no scorer of that name")));
  const absl::Status status = learner.Join();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no scorer of that name"));
  EXPECT_EQ(learner->Status().phase(), "failed");
  EXPECT_THAT(learner->Status().error(), HasSubstr("no scorer of that name"));
  EXPECT_TRUE(actor.Join().ok());
  EXPECT_GE(actor.metrics().tasks["failed"].Value(), 3);
}

TEST(InProcessClusterTest, CountsUpdatesThatChangedNothing) {
  const TempDir dir;
  InProcessLearner learner(SmallRun(), dir.path());
  learner.trainer().SeemIdle();
  learner.Start();
  InProcessActor actor(learner->address(), "actor-0");
  EXPECT_TRUE(actor.Join().ok());
  EXPECT_TRUE(learner.Join().ok());
  EXPECT_EQ(learner->metrics().weights_unchanged.Value(), 4);
}

TEST(InProcessClusterTest, WeightsThatAreNotFiniteAreNotPublished) {
  const TempDir dir;
  InProcessLearner learner(SmallRun(), dir.path());
  learner.trainer().FailPolicies(NonFiniteError("unet.down is not finite"));
  const absl::Status status = learner.RunToTheEnd();
  EXPECT_TRUE(IsNonFinite(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("unet.down is not finite"));
}

TEST(InProcessClusterTest, TheNextStartStillTellsThatTheRunFailed) {
  const TempDir dir;
  {
    InProcessLearner learner(SmallRun(), dir.path());
    learner.trainer().FailPolicies(NonFiniteError("unet.down is not finite"));
    EXPECT_FALSE(learner.RunToTheEnd().ok());
    EXPECT_EQ(learner->metrics().run_failures["non_finite"].Value(), 1);
  }
  InProcessLearner next(SmallRun(), dir.path());
  EXPECT_EQ(next->metrics().run_failures["non_finite"].Value(), 1);
  EXPECT_EQ(next->metrics().generation.Value(), 2);
  EXPECT_EQ(next->Status().failures().at("non_finite"), 1);
}

TEST(InProcessClusterTest, HealthChecksOfProgressFailOnceTheRunsThreadHangs) {
  const auto health = [](absl::Duration stall) {
    const TempDir dir;
    LearnerOptions options;
    options.config = SmallRun();
    options.run_dir = dir.path();
    options.metrics_listen.clear();
    options.stall = stall;
    HashingTrainer trainer;
    SingleRank single_rank(/*generation=*/1);
    auto learner = Learner::Start(options, &trainer, &single_rank);
    EXPECT_TRUE(learner.ok()) << learner.status();
    // Run is not called, so nothing beats.
    return testing::CheckHealth(*CreateChannel((*learner)->address()), kProgressHealth);
  };
  EXPECT_EQ(health(absl::Hours(1)), "SERVING");
  EXPECT_EQ(health(absl::ZeroDuration()), "NOT_SERVING");
}

TEST(InProcessClusterTest, AnotherConfigurationIsRefusedByItsKeys) {
  const TempDir dir;
  RunWith(1, SmallRun(), dir);
  InProcessLearner other(SmallRun({"training.learning_rate=0.5", "sampling.eta=0.5"}), dir.path());
  EXPECT_EQ(other.start_status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(other.start_status().message()),
              ::testing::AllOf(HasSubstr("training.learning_rate"), HasSubstr("sampling.eta")));
  InProcessLearner longer(SmallRun({"run.epochs=5", "cluster.actors=9"}), dir.path());
  EXPECT_TRUE(longer.start_status().ok()) << longer.start_status();
}

TEST(InProcessClusterTest, AnActorThatIsAskedToStopDeliversWhatItHas) {
  const TempDir dir;
  InProcessLearner learner(SmallRun(), dir.path());
  learner.Start();
  std::unique_ptr<InProcessActor> actor;
  absl::Notification made, scored;
  actor = std::make_unique<InProcessActor>(
      learner->address(), "actor-0",
      [&](absl::Span<const Image> images, absl::Span<const std::string> prompts,
          const std::function<bool()>& cancelled) {
        if (!scored.HasBeenNotified()) {
          made.WaitForNotification();
          actor->Stop();
          scored.Notify();
        }
        return HashReward(images, prompts, cancelled);
      });
  made.Notify();
  scored.WaitForNotification();
  EXPECT_TRUE(actor->Join().ok());
  EXPECT_GE(actor->metrics().tasks["delivered"].Value(), 1);
  EXPECT_EQ(actor->metrics().tasks["lost"].Value(), 0);
  EXPECT_GE(learner->Status().ledger().received(), 2);
}

TEST(InProcessClusterTest, ATaskThatIsAlwaysCancelledFailsTheRun) {
  const TempDir dir;
  InProcessLearner learner(SmallRun({"cluster.max_task_attempts=3"}), dir.path());
  learner.Start();
  InProcessActor actor(learner->address(), "actor-0",
                       FailsWith(absl::CancelledError("the reward server is closing")));
  const absl::Status status = learner.Join();
  EXPECT_FALSE(status.ok() || absl::IsCancelled(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("the reward server is closing"));
  EXPECT_EQ(learner->metrics().run_failures["tasks"].Value(), 1);
  EXPECT_TRUE(actor.Join().ok());
}

TEST(InProcessClusterTest, AnUpdateThatFailsOtherwiseIsNotCountedAsNotFinite) {
  for (const bool finite : {true, false}) {
    const TempDir dir;
    InProcessLearner learner(SmallRun(), dir.path());
    learner.trainer().FailTraining(finite ? absl::InternalError("CUDA out of memory")
                                          : NonFiniteError("the loss is nan"));
    learner.Start();
    const InProcessActor actor(learner->address(), "actor-0");
    EXPECT_FALSE(learner.Join().ok());
    const LearnerMetrics& metrics = learner->metrics();
    EXPECT_EQ(metrics.run_failures["other"].Value(), finite ? 1 : 0);
    EXPECT_EQ(metrics.run_failures["non_finite"].Value(), finite ? 0 : 1);
    EXPECT_EQ(metrics.non_finite_refused.Value(), finite ? 0 : 1);
  }
}

// Rewards as by HashReward, of a scorer with this digest.
RewardFunction ScoredBy(const std::string& digest) {
  return [digest](absl::Span<const Image> images, absl::Span<const std::string> prompts,
                  const std::function<bool()>& cancelled) {
    auto rewards = HashReward(images, prompts, cancelled);
    for (RewardResult& reward : *rewards) reward.scorer_digest = digest;
    return rewards;
  };
}

TEST(InProcessClusterTest, ARunTakesRewardsOfOneScorerOnly) {
  const config::v1::Config config = SmallRun({"cluster.max_task_attempts=3"});
  const TempDir calm_dir, dir;
  const std::string calm = RunWith(1, SmallRun(), calm_dir);
  // Two starts: in the first, reward servers are started with another scorer after the first epoch.
  for (const bool resumes : {false, true}) {
    InProcessLearner learner(config, dir.path());
    std::atomic<int> batches{resumes ? 4 : 0};
    InProcessActor actor(learner->address(), "actor-0",
                         [&](absl::Span<const Image> images, absl::Span<const std::string> prompts,
                             const std::function<bool()>& cancelled) {
                           return ScoredBy(batches++ < 4 ? "d1" : "d2")(images, prompts, cancelled);
                         });
    const absl::Status status = learner.RunToTheEnd();
    EXPECT_THAT(std::string(status.message()),
                ::testing::AllOf(HasSubstr("task e00001-b0"), HasSubstr("digest `d2`"),
                                 HasSubstr("the run's rewards are of digest `d1`")));
    EXPECT_EQ(learner->metrics().run_failures["tasks"].Value(), resumes ? 2 : 1);
    EXPECT_GE(learner->Status().ledger().dropped().at("other_scorer"), 3);
    EXPECT_TRUE(actor.Join().ok());
  }
  // Once the run's scorer is back, the run goes on.
  InProcessLearner learner(config, dir.path());
  InProcessActor actor(learner->address(), "actor-0", ScoredBy("d1"));
  EXPECT_TRUE(learner.RunToTheEnd().ok());
  EXPECT_TRUE(actor.Join().ok());
  EXPECT_EQ(FinalLora(dir), calm);
}

}  // namespace
}  // namespace ddpo
