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
#include "common/base/fake_clock.h"
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

// Tells when a policy is set and when a batch is denoised.
class ObservedSampler : public HashingSampler {
 public:
  absl::Status SetPolicy(const std::string& safetensors) override {
    if (on_set_policy) on_set_policy();
    return HashingSampler::SetPolicy(safetensors);
  }
  absl::StatusOr<SampledBatch> Sample(const std::vector<std::string>& prompts,
                                      const std::vector<uint64_t>& seeds,
                                      const std::function<bool()>& cancelled) override {
    if (on_sample) on_sample(cancelled);
    ++batches;
    return HashingSampler::Sample(prompts, seeds, cancelled);
  }

  std::function<void()> on_set_policy;
  std::function<void(const std::function<bool()>&)> on_sample;
  std::atomic<int> batches{0};
};

// A clock that knows how often it was waited with.
class WatchedClock : public FakeClock {
 public:
  void WaitWithDeadline(absl::CondVar* signal, absl::Mutex* mutex, absl::Time deadline) override {
    ++waits_;
    FakeClock::WaitWithDeadline(signal, mutex, deadline);
  }
  // Returns when whoever waits with it has seen the new time.
  void AdvanceVisibly(absl::Duration duration) {
    Advance(duration);
    // The next wait may have been decided on before.
    const int enough = waits_ + 2;
    while (waits_ < enough) std::this_thread::yield();
  }

 private:
  std::atomic<int> waits_{0};
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
    parts.on_stall = [this](const std::string& task_id) {
      stalled_task_ = task_id;
      stalled_.Notify();
    };
    loop_ = std::make_unique<RolloutLoop>(options_, parts);
    const absl::Status status = loop_->Run();
    client_->CancelStreams();
    return status;
  }

  // Seconds in which the sampler waited for it.
  double Idle(const std::string& cause) { return metrics_.idle_seconds[cause].Value(); }
  // Makes stall_limit count on clock_.
  void UseFakeClock() {
    options_.clock = &clock_;
    options_.stall_limit = kLooks * kLook;
  }
  // Time passes until the sampler is said to hang.
  void Hang() {
    while (!stalled_.HasBeenNotified()) clock_.AdvanceVisibly(kLook);
  }

  // The watch looks that often, as long as the time is the fake one.
  static constexpr absl::Duration kLook = absl::Seconds(1);
  static constexpr int kLooks = 10;

  WatchedClock clock_;
  absl::Notification stalled_;
  std::string stalled_task_;
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

TEST_F(RolloutLoopTest, ALateRefusalOfTheOldGenerationLeavesNewWorkAlone) {
  for (const char* task : {"delivered", "denoised"}) learner_.AddTask(task);
  absl::Notification delivering, new_is_leased;
  learner_.on_deliver = [&] {
    if (delivering.HasBeenNotified()) return;
    delivering.Notify();
    new_is_leased.WaitForNotification();
  };
  sampler_.on_sample = [&](const std::function<bool()>& cancelled) {
    if (sampler_.batches == 1) {
      delivering.WaitForNotification();
      learner_.StartGeneration(2);
      learner_.AddTask("new");
      while (!cancelled()) std::this_thread::yield();  // the renewal notices
    }
    if (sampler_.batches == 2) {
      new_is_leased.Notify();
      while (metrics_.tasks["lost"].Value() < 2) std::this_thread::yield();
      if (cancelled()) loop_->Abort();
    }
  };
  EXPECT_TRUE(Run().ok());
  learner_.ShutDown();  // on_deliver looks at what ends here
  EXPECT_EQ(learner_.registrations(), 2);
  EXPECT_THAT(learner_.samples(),
              ElementsAre(Pair("new/0", 1), Pair("new/1", 1), Pair("new/2", 1)));
}

TEST_F(RolloutLoopTest, DropsADeliveryWhoseLeaseIsLost) {
  options_.delivery_timeout = absl::InfiniteDuration();
  learner_.AddTask("a");
  absl::Notification over;
  learner_.on_deliver = [&] {
    learner_.LoseLease(1);
    over.WaitForNotification();
  };
  EXPECT_TRUE(Run().ok());
  over.Notify();
  learner_.ShutDown();  // on_deliver looks at what ends here
  EXPECT_EQ(metrics_.tasks["lost"].Value(), 1);
}

TEST_F(RolloutLoopTest, AStopDoesNotWaitForAPolicyThatDoesNotCome) {
  learner_.AddTask("a", /*version=*/3);
  learner_.on_fetch_policy = [&] {
    loop_->Stop();
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone");
  };
  EXPECT_TRUE(Run().ok());
  ASSERT_THAT(learner_.failures(), SizeIs(1));
  // Not the error of the last try, which comes with the end of all patience.
  EXPECT_EQ(learner_.failures()[0].code(), static_cast<int>(absl::StatusCode::kCancelled));
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

TEST_F(RolloutLoopTest, NamesTheTaskOfASamplerThatHangsAndKeepsItNoLonger) {
  UseFakeClock();
  learner_.AddTask("a");
  sampler_.on_sample = [&](const std::function<bool()>& cancelled) {
    EXPECT_FALSE(cancelled());
    Hang();
    EXPECT_TRUE(cancelled());
    learner_.LoseLease(1);
  };
  EXPECT_TRUE(Run().ok());
  EXPECT_EQ(stalled_task_, "a");
  EXPECT_EQ(metrics_.tasks["lost"].Value(), 1);
  EXPECT_THAT(learner_.samples(), IsEmpty());
}

TEST_F(RolloutLoopTest, NoticesASamplerThatHangsWithAPolicy) {
  UseFakeClock();
  learner_.AddTask("a");
  sampler_.on_set_policy = [&] {
    Hang();
    learner_.LoseLease(1);
  };
  EXPECT_TRUE(Run().ok());
  EXPECT_EQ(stalled_task_, "a");
}

TEST_F(RolloutLoopTest, LeavesASamplerAloneThatIsSlowOrHasNoTask) {
  UseFakeClock();
  learner_.AddTask("a");
  const auto most_of_the_limit = [&] {
    for (int i = 0; i < kLooks - 1; ++i) clock_.AdvanceVisibly(kLook);
  };
  sampler_.on_set_policy = most_of_the_limit;
  sampler_.on_sample = [&](const std::function<bool()>& cancelled) {
    for (int step = 0; step < 3; ++step) {
      most_of_the_limit();
      EXPECT_FALSE(cancelled());
    }
    most_of_the_limit();
  };
  EXPECT_TRUE(Run([&](auto images, auto prompts, const auto& cancelled) {
                for (int i = 0; i < 3; ++i) most_of_the_limit();
                return HashReward(images, prompts, cancelled);
              }).ok());
  EXPECT_FALSE(stalled_.HasBeenNotified());
  EXPECT_EQ(metrics_.tasks["delivered"].Value(), 1);
}

TEST_F(RolloutLoopTest, AStopOfTheProcessIsNotTheSamplersFault) {
  UseFakeClock();
  learner_.AddTask("a");
  sampler_.on_sample = [&](const auto&) { clock_.AdvanceVisibly(3 * options_.stall_limit); };
  EXPECT_TRUE(Run().ok());
  EXPECT_FALSE(stalled_.HasBeenNotified());
  EXPECT_EQ(metrics_.tasks["delivered"].Value(), 1);
}

TEST_F(RolloutLoopTest, IdlesForRewardsWhileTheyAreSlow) {
  for (const char* task : {"a", "b", "c", "d"}) learner_.AddTask(task);
  double for_delivery = -1;
  EXPECT_TRUE(Run([&](auto images, auto prompts, const auto& cancelled) {
                while (Idle("reward") < 0.05) std::this_thread::yield();
                if (for_delivery < 0) for_delivery = Idle("delivery");
                return HashReward(images, prompts, cancelled);
              }).ok());
  EXPECT_EQ(for_delivery, 0);
}

TEST_F(RolloutLoopTest, IdlesForTheDeliveryWhileItIsSlow) {
  // One that is delivered, two that wait for it, one with rewards, two that wait for theirs.
  for (const char* task : {"a", "b", "c", "d", "e", "f", "g"}) learner_.AddTask(task);
  std::atomic<double> for_rewards = 0;
  std::atomic<double> for_rewards_later = -1;
  learner_.on_deliver = [&] {
    if (for_rewards_later >= 0) return;
    while (Idle("delivery") < 0.05) std::this_thread::yield();
    for_rewards = Idle("reward");
    while (Idle("delivery") < 0.15) std::this_thread::yield();
    for_rewards_later = Idle("reward");
  };
  EXPECT_TRUE(Run().ok());
  EXPECT_EQ(for_rewards, for_rewards_later);
}

TEST_F(RolloutLoopTest, IdlesForATaskBeforeOneComes) {
  learner_.AddTask("a");
  // No further task comes, nor the end, before the rewards.
  EXPECT_TRUE(Run([&](auto images, auto prompts, const auto& cancelled) {
                const double first = Idle("task");
                while (Idle("task") == first) std::this_thread::yield();
                return HashReward(images, prompts, cancelled);
              }).ok());
}

TEST_F(RolloutLoopTest, IdlesForAPolicyBeforeItComes) {
  learner_.AddTask("a", /*version=*/3);
  std::atomic<int> fetches = 0;
  learner_.on_fetch_policy = [&]() -> grpc::Status {
    if (++fetches == 1) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "later");
    while (Idle("policy") == 0) std::this_thread::yield();
    return grpc::Status::OK;
  };
  EXPECT_TRUE(Run().ok());
  EXPECT_EQ(fetches, 2);
  EXPECT_THAT(learner_.samples(), SizeIs(3));
}

}  // namespace
}  // namespace ddpo
