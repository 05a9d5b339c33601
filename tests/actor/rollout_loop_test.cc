#include "actor/rollout_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "tests/actor/scripted_learner.h"
#include "tests/testing/fake_training.h"

namespace ddpo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::SizeIs;

using testing::HashingSampler;
using testing::HashReward;
using testing::ScriptedLearner;

// Tells when a batch is denoised.
class ObservedSampler : public HashingSampler {
 public:
  absl::StatusOr<SampledBatch> Sample(const std::vector<std::string>& prompts,
                                      const std::vector<uint64_t>& seeds,
                                      const std::function<bool()>& cancelled) override {
    if (on_sample) on_sample(cancelled);
    ++batches;
    return HashingSampler::Sample(prompts, seeds, cancelled);
  }

  std::function<void(const std::function<bool()>&)> on_sample;
  std::atomic<int> batches{0};
};

class RolloutLoopTest : public ::testing::Test {
 protected:
  RolloutLoopTest() : metrics_(registry_) {
    LearnerClientOptions client_options;
    client_options.address = learner_.address();
    client_options.actor_id = "actor-0";
    client_options.incarnation = 1;
    client_options.call_timeout = absl::Seconds(5);
    client_ = *LearnerClient::Create(client_options);
    options_.actor_id = "actor-0";
    options_.model_digest = "model";
    options_.lease_wait = absl::Milliseconds(200);
    options_.give_up_after = absl::Seconds(10);
    options_.first_pause = absl::Milliseconds(1);
    options_.max_pause = absl::Milliseconds(2);
  }
  ~RolloutLoopTest() override { client_->Abort(); }

  // Runs until the learner says that all tasks are done.
  absl::Status Run(RewardFunction score = HashReward) {
    EXPECT_TRUE(client_->Register("model").ok());
    PolicyReplicaOptions replica_options;
    replica_options.first_pause = absl::Milliseconds(1);
    replica_options.max_pause = absl::Milliseconds(2);
    replica_options.patience = absl::Milliseconds(100);
    PolicyReplica policies(client_.get(), &metrics_, replica_options);
    policies.Reset();
    RolloutParts parts;
    parts.learner = client_.get();
    parts.policies = &policies;
    parts.sampler = &sampler_;
    parts.score = std::move(score);
    parts.metrics = &metrics_;
    loop_ = std::make_unique<RolloutLoop>(options_, parts);
    const absl::Status status = loop_->Run();
    client_->CancelStreams();
    return status;
  }

  ScriptedLearner learner_;
  prometheus::Registry registry_;
  ActorMetrics metrics_;
  ObservedSampler sampler_;
  RolloutLoopOptions options_;
  std::unique_ptr<LearnerClient> client_;
  std::unique_ptr<RolloutLoop> loop_;
};

TEST_F(RolloutLoopTest, DeliversEverySampleOfEveryTask) {
  for (const char* task : {"a", "b"}) learner_.AddTask(task);
  EXPECT_TRUE(Run().ok());
  EXPECT_THAT(learner_.samples(), ElementsAre(Pair("a/0", 1), Pair("a/1", 1), Pair("a/2", 1),
                                              Pair("b/0", 1), Pair("b/1", 1), Pair("b/2", 1)));
  EXPECT_EQ(metrics_.tasks["delivered"].Value(), 2);
  EXPECT_EQ(metrics_.samples.Value(), 6);
}

TEST_F(RolloutLoopTest, SendsSamplesWithoutAnAckAgainOnANewStream) {
  learner_.AddTask("a");
  learner_.BreakStreamsAfter({1, 0});
  EXPECT_TRUE(Run().ok());
  // 0 is acked at once; 1 was taken, twice, without an ack; 2 comes with the third stream.
  const auto samples = learner_.samples();
  EXPECT_EQ(samples.at("a/0"), 1);
  EXPECT_EQ(samples.at("a/1"), 3);
  EXPECT_EQ(samples.at("a/2"), 1);
  EXPECT_EQ(metrics_.samples_redelivered.Value(), 4);
  EXPECT_EQ(metrics_.tasks["delivered"].Value(), 1);
}

TEST_F(RolloutLoopTest, DenoisesTheNextBatchWhileRewardsAreUnderWay) {
  for (const char* task : {"a", "b"}) learner_.AddTask(task);
  absl::Notification second_is_denoised;
  sampler_.on_sample = [&](const auto&) {
    if (sampler_.batches == 1) second_is_denoised.Notify();
  };
  // The first rewards come only after the second batch has begun: a loop that waited for them would
  // never end.
  EXPECT_TRUE(Run([&](auto images, auto prompts, const auto& cancelled) {
                second_is_denoised.WaitForNotification();
                return HashReward(images, prompts, cancelled);
              }).ok());
}

TEST_F(RolloutLoopTest, DropsABatchWhoseLeaseIsLost) {
  learner_.AddTask("a");
  sampler_.on_sample = [&](const std::function<bool()>& cancelled) {
    learner_.LoseLease(1);
    while (!cancelled()) std::this_thread::yield();
  };
  EXPECT_TRUE(Run().ok());
  EXPECT_THAT(learner_.samples(), IsEmpty());
  EXPECT_THAT(learner_.failures(), IsEmpty());
  EXPECT_EQ(metrics_.tasks["lost"].Value(), 1);
}

TEST_F(RolloutLoopTest, RegistersAgainAndDropsWorkOfTheOldGeneration) {
  learner_.AddTask("old");
  sampler_.on_sample = [&](const std::function<bool()>& cancelled) {
    sampler_.on_sample = nullptr;
    learner_.StartGeneration(2);
    learner_.AddTask("new");
    while (!cancelled()) std::this_thread::yield();  // the renewal notices
  };
  EXPECT_TRUE(Run().ok());
  EXPECT_EQ(learner_.registrations(), 2);
  EXPECT_THAT(learner_.samples(),
              ElementsAre(Pair("new/0", 1), Pair("new/1", 1), Pair("new/2", 1)));
  EXPECT_THAT(learner_.failures(), IsEmpty());
}

TEST_F(RolloutLoopTest, GivesATaskBackWithTheReasonWhenRewardsFail) {
  learner_.AddTask("a");
  EXPECT_TRUE(Run([](auto, auto, const auto&) -> absl::StatusOr<std::vector<RewardResult>> {
                return absl::UnavailableError("no server at 127.0.0.1:1");
              }).ok());
  ASSERT_THAT(learner_.failures(), SizeIs(1));
  EXPECT_EQ(learner_.failures()[0].task_id(), "a");
  EXPECT_EQ(learner_.failures()[0].code(), static_cast<int>(absl::StatusCode::kUnavailable));
  EXPECT_THAT(learner_.failures()[0].message(), HasSubstr("no server at 127.0.0.1:1"));
  EXPECT_THAT(learner_.samples(), IsEmpty());
  EXPECT_EQ(metrics_.reward_failures.Value(), 3);
}

TEST_F(RolloutLoopTest, ARewardThatIsNotFiniteIsAFailure) {
  learner_.AddTask("a");
  EXPECT_TRUE(Run([](auto images, auto, const auto&) -> absl::StatusOr<std::vector<RewardResult>> {
                std::vector<RewardResult> rewards(images.size());
                rewards[1].value = std::numeric_limits<double>::quiet_NaN();
                return rewards;
              }).ok());
  ASSERT_THAT(learner_.failures(), SizeIs(1));
  EXPECT_THAT(learner_.samples(), IsEmpty());
}

TEST_F(RolloutLoopTest, AChangedScorerIsNotTakenForALostRegistration) {
  learner_.AddTask("a");
  EXPECT_TRUE(Run([](auto, auto, const auto&) -> absl::StatusOr<std::vector<RewardResult>> {
                return absl::FailedPreconditionError("the digest changed");
              }).ok());
  EXPECT_THAT(learner_.failures(), SizeIs(1));
  EXPECT_EQ(learner_.registrations(), 1);
}

TEST_F(RolloutLoopTest, GivesATaskBackWhoseSamplesAreRefused) {
  learner_.AddTask("a");
  learner_.RefuseSamples("12 bytes of latents, expected 24");
  EXPECT_TRUE(Run().ok());
  ASSERT_THAT(learner_.failures(), SizeIs(1));
  EXPECT_THAT(learner_.failures()[0].message(), HasSubstr("12 bytes of latents, expected 24"));
}

TEST_F(RolloutLoopTest, FetchesAVersionThatTheSubscriptionLeftOut) {
  learner_.AddTask("a", /*version=*/3);
  learner_.AddTask("b", /*version=*/5);
  EXPECT_TRUE(Run().ok());
  EXPECT_THAT(learner_.acked_versions(), ElementsAre(3, 5));
  EXPECT_THAT(learner_.samples(), SizeIs(6));
}

TEST_F(RolloutLoopTest, NeverSamplesWithADamagedPolicy) {
  learner_.DamagePolicies(2);
  learner_.AddTask("a", /*version=*/5);
  EXPECT_TRUE(Run().ok());
  EXPECT_GE(metrics_.policies_refused.Value(), 1);
  EXPECT_THAT(learner_.acked_versions(), ElementsAre(5));
  EXPECT_THAT(learner_.samples(), SizeIs(3));
}

TEST_F(RolloutLoopTest, FailsWhenTheLearnerIsGoneForTooLong) {
  options_.give_up_after = absl::Milliseconds(100);
  learner_.AddTask("a");
  const absl::Status status = Run([&](auto images, auto prompts, const auto& cancelled) {
    learner_.ShutDown();
    return HashReward(images, prompts, cancelled);
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
}

TEST_F(RolloutLoopTest, AbortEndsABatchThatIsBeingDenoised) {
  learner_.AddTask("a");
  std::thread aborter([&] {
    learner_.AwaitLeases(1);
    loop_->Abort();
  });
  sampler_.on_sample = [&](const std::function<bool()>& cancelled) {
    while (!cancelled()) std::this_thread::yield();
  };
  EXPECT_TRUE(Run().ok());
  aborter.join();
  EXPECT_THAT(learner_.samples(), IsEmpty());
}

}  // namespace
}  // namespace ddpo
