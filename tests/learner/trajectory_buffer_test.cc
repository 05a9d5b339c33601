#include "learner/trajectory_buffer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace ddpo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using cluster::v1::SampleAck;
using cluster::v1::TrajectorySample;

constexpr uint64_t kGeneration = 3;
constexpr int kSteps = 2;

std::string Bytes(const std::vector<float>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

cluster::v1::RolloutTask Task(const std::string& id, int64_t epoch) {
  cluster::v1::RolloutTask task;
  task.set_task_id(id);
  task.set_epoch(epoch);
  task.set_policy_version(epoch);
  for (const char* prompt : {"a cat", "a dog"}) task.add_prompts(prompt);
  return task;
}

TrajectorySample Sample(const std::string& task, int64_t epoch, int index) {
  TrajectorySample sample;
  sample.set_generation(kGeneration);
  sample.set_actor_id("actor-0");
  sample.set_task_id(task);
  sample.set_epoch(epoch);
  sample.set_policy_version(epoch);
  sample.set_sample_index(index);
  sample.set_num_steps(kSteps);
  sample.set_latent_channels(1);
  sample.set_latent_height(1);
  sample.set_latent_width(2);
  sample.set_latents(Bytes({1, 2, 3, 4, 5, 6}));
  sample.set_log_probs(Bytes({-1, -2}));
  sample.set_reward(index);
  return sample;
}

class TrajectoryBufferTest : public ::testing::Test {
 protected:
  TrajectoryBufferTest() {
    buffer_.Expect(Task("e0-b0", 0));
    buffer_.Expect(Task("e0-b1", 0));
  }

  SampleAck::Outcome Offer(const TrajectorySample& sample) {
    last_ = buffer_.Offer(sample, kGeneration);
    ExpectBalance();
    return last_.ack.outcome();
  }
  void ExpectBalance() {
    const auto ledger = buffer_.ledger();
    int64_t sum = ledger.trained() + ledger.buffered();
    for (const auto& [reason, count] : ledger.dropped()) sum += count;
    EXPECT_EQ(ledger.received(), sum);
  }
  int64_t Dropped(const std::string& reason) {
    const auto ledger = buffer_.ledger();
    const auto found = ledger.dropped().find(reason);
    return found == ledger.dropped().end() ? 0 : found->second;
  }
  void ExpectRefused(const TrajectorySample& sample, const std::string& why) {
    EXPECT_EQ(Offer(sample), SampleAck::REFUSED);
    EXPECT_THAT(last_.ack.message(), HasSubstr(why));
    EXPECT_EQ(buffer_.ledger().buffered(), 0);
  }

  TrajectoryBuffer buffer_{kSteps, /*latent_shape=*/{1, 1, 2}, /*rank=*/0};
  TrajectoryBuffer::Answer last_;
};

TEST_F(TrajectoryBufferTest, GivesAnEpochByTaskAndIndexHoweverItCame) {
  for (const auto& [task, index] : std::vector<std::pair<const char*, int>>{
           {"e0-b1", 1}, {"e0-b0", 1}, {"e0-b1", 0}, {"e0-b0", 0}}) {
    EXPECT_EQ(Offer(Sample(task, 0, index)), SampleAck::TAKEN);
  }
  const auto samples = buffer_.TakeEpoch(0);
  ASSERT_TRUE(samples.ok()) << samples.status();
  std::vector<std::string> order;
  for (const TrainingSample& sample : *samples) {
    order.push_back(absl::StrCat(sample.task_id, "/", sample.sample_index, " ", sample.prompt));
  }
  EXPECT_THAT(order,
              ElementsAre("e0-b0/0 a cat", "e0-b0/1 a dog", "e0-b1/0 a cat", "e0-b1/1 a dog"));
  buffer_.MarkTrained(4);
  ExpectBalance();
  EXPECT_EQ(buffer_.ledger().trained(), 4);
}

TEST_F(TrajectoryBufferTest, SaysWhichSampleMadeItsTaskComplete) {
  Offer(Sample("e0-b0", 0, 0));
  EXPECT_FALSE(last_.task_complete);
  Offer(Sample("e0-b0", 0, 1));
  EXPECT_TRUE(last_.task_complete);
  // An actor that did not get the ack sends it again: its lease has to end all the same.
  Offer(Sample("e0-b0", 0, 1));
  EXPECT_TRUE(last_.task_complete);
}

TEST_F(TrajectoryBufferTest, CountsASampleThatComesTwiceOnce) {
  EXPECT_EQ(Offer(Sample("e0-b0", 0, 0)), SampleAck::TAKEN);
  EXPECT_EQ(Offer(Sample("e0-b0", 0, 0)), SampleAck::DUPLICATE);
  EXPECT_EQ(Dropped("duplicate"), 1);
  EXPECT_EQ(buffer_.EpochProgress(0).have, 1);
}

TEST_F(TrajectoryBufferTest, CallsASampleOfATrainedEpochADuplicate) {
  for (const char* task : {"e0-b0", "e0-b1"}) {
    for (int i : {0, 1}) Offer(Sample(task, 0, i));
  }
  ASSERT_TRUE(buffer_.TakeEpoch(0).ok());
  EXPECT_EQ(Offer(Sample("e0-b0", 0, 0)), SampleAck::DUPLICATE);
  EXPECT_TRUE(last_.task_complete);
}

TEST_F(TrajectoryBufferTest, WaitsForTheWholeEpoch) {
  Offer(Sample("e0-b0", 0, 0));
  EXPECT_FALSE(buffer_.WaitForEpoch(0, absl::Now()));
  EXPECT_EQ(buffer_.TakeEpoch(0).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(TrajectoryBufferTest, RefusesAnOlderGeneration) {
  TrajectorySample sample = Sample("e0-b0", 0, 0);
  sample.set_generation(kGeneration - 1);
  ExpectRefused(sample, "generation 2");
  EXPECT_EQ(Dropped("stale_generation"), 1);
}

TEST_F(TrajectoryBufferTest, RefusesATaskThatIsNotOut) {
  ExpectRefused(Sample("e9-b0", 9, 0), "e9-b0");
  EXPECT_EQ(Dropped("unknown_task"), 1);
}

TEST_F(TrajectoryBufferTest, RefusesWhatIsMalformedWithTheReason) {
  TrajectorySample sample = Sample("e0-b0", 0, 2);
  ExpectRefused(sample, "sample index 2");
  sample = Sample("e0-b0", 0, 0);
  sample.set_policy_version(5);
  ExpectRefused(sample, "policy version 5, expected 0");
  sample = Sample("e0-b0", 0, 0);
  sample.set_num_steps(3);
  ExpectRefused(sample, "3 denoising steps, expected 2");
  sample = Sample("e0-b0", 0, 0);
  sample.set_latents(Bytes({1, 2, 3}));
  ExpectRefused(sample, "12 bytes of latents, expected 24");
  sample = Sample("e0-b0", 0, 0);
  sample.set_log_probs("");
  ExpectRefused(sample, "0 bytes of log-probabilities, expected 8");
  sample = Sample("e0-b0", 0, 0);
  sample.set_latent_height(-1);
  ExpectRefused(sample, "[1,-1,2], expected [1,1,2]");
  EXPECT_EQ(Dropped("malformed"), 6);
}

TEST_F(TrajectoryBufferTest, RefusesNumbersThatAreNotFinite) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  TrajectorySample sample = Sample("e0-b0", 0, 0);
  sample.set_latents(Bytes({1, 2, 3, nan, 5, 6}));
  ExpectRefused(sample, "latent that is not finite");
  sample = Sample("e0-b0", 0, 0);
  sample.set_log_probs(Bytes({-INFINITY, 0}));
  ExpectRefused(sample, "log-probability that is not finite");
  sample = Sample("e0-b0", 0, 0);
  sample.set_reward(nan);
  ExpectRefused(sample, "reward that is not finite");
}

TEST_F(TrajectoryBufferTest, RefusesALatentOfAnotherShapeThanTheModels) {
  TrajectorySample sample = Sample("e0-b0", 0, 0);
  sample.set_latent_channels(2);
  sample.set_latent_width(1);
  ExpectRefused(sample, "[2,1,1], expected [1,1,2]");
}

TrajectorySample ScoredBy(const std::string& digest, int index) {
  TrajectorySample sample = Sample("e0-b0", 0, index);
  sample.set_scorer_digest(digest);
  return sample;
}

TEST_F(TrajectoryBufferTest, RefusesRewardsOfAnotherScorerThanTheFirst) {
  EXPECT_EQ(Offer(ScoredBy("d1", 0)), SampleAck::TAKEN);
  EXPECT_EQ(Offer(ScoredBy("d2", 1)), SampleAck::REFUSED);
  EXPECT_THAT(last_.ack.message(),
              ::testing::AllOf(HasSubstr("e0-b0/1"), HasSubstr("`d2`"), HasSubstr("`d1`")));
  EXPECT_EQ(Offer(ScoredBy("", 1)), SampleAck::REFUSED);
  EXPECT_EQ(Dropped("other_scorer"), 2);
  // The task was done again with the other scorer: what is held already stays.
  EXPECT_EQ(Offer(ScoredBy("d2", 0)), SampleAck::DUPLICATE);
  EXPECT_EQ(Offer(ScoredBy("d1", 1)), SampleAck::TAKEN);
}

TEST_F(TrajectoryBufferTest, RefusesRewardsOfAnotherScorerThanTheRunsBefore) {
  buffer_.PinScorer("d1");
  ExpectRefused(ScoredBy("d2", 0), "the run's rewards are of digest `d1`");
}

TEST_F(TrajectoryBufferTest, ScorersWithoutADigestAreNotTold) {
  buffer_.PinScorer("");
  EXPECT_EQ(Offer(ScoredBy("", 0)), SampleAck::TAKEN);
  EXPECT_EQ(buffer_.scorer_digest(), "");
  EXPECT_EQ(Offer(ScoredBy("d1", 1)), SampleAck::TAKEN);
  EXPECT_EQ(buffer_.scorer_digest(), "d1");
}

TEST_F(TrajectoryBufferTest, PutsWhatWasBufferedAtACheckpointDownAsDiscarded) {
  cluster::v1::Ledger saved;
  saved.set_received(10);
  saved.set_trained(6);
  saved.set_buffered(4);
  buffer_.RestoreLedger(saved);
  ExpectBalance();
  EXPECT_EQ(Dropped("discarded_at_stop"), 4);
  EXPECT_EQ(buffer_.ledger().buffered(), 0);
}

}  // namespace
}  // namespace ddpo
