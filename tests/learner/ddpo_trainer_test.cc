#include "learner/ddpo_trainer.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/tensors/safetensors.h"
#include "tests/learner/small_trainer.h"

namespace ddpo {
namespace {

using ::ddpo::testing::Advantages;
using ::ddpo::testing::kNumSteps;
using ::ddpo::testing::LoadTinyPipeline;
using ::ddpo::testing::MakeTrainer;
using ::ddpo::testing::Sample;
using ::ddpo::testing::SmallTrainer;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class FirstPassTest : public ::testing::TestWithParam<size_t> {};
INSTANTIATE_TEST_SUITE_P(SamplingBatchSizes, FirstPassTest, ::testing::Values(1, 3, 4, 8));

// Invariant 5 of the design, for minibatches of 4, before and after the policy has moved: to the
// bit where actor and learner run the same shapes; otherwise LibTorch may choose other kernels.
TEST_P(FirstPassTest, TheLearnersLogProbabilitiesAreTheActors) {
  DdpoTrainerOptions options = SmallTrainer();
  options.gradient_accumulation = 2;
  const std::unique_ptr<PolicyTrainer> trainer = MakeTrainer(options);
  const double tolerance = GetParam() == 4 ? 0 : 1e-5;
  for (int epoch = 0; epoch < 2; ++epoch) {
    const std::vector<TrainingSample> samples = Sample(*trainer, GetParam(), epoch);
    const UpdateMetrics metrics = trainer->TrainEpoch(samples, Advantages(), epoch).value();
    EXPECT_LE(metrics.logprob_abs_diff_max, tolerance);
    EXPECT_NEAR(metrics.ratio_mean, 1, tolerance);
    EXPECT_LE(metrics.approx_kl, tolerance);
    EXPECT_EQ(metrics.optimizer_steps, 1);
    EXPECT_TRUE(metrics.weights_changed);
  }
}

TEST(DdpoTrainerTest, OnlyUnitsBeforeTheFirstOptimizerStepCountForTheLogProbabilityDifference) {
  DdpoTrainerOptions options = SmallTrainer();
  options.inner_epochs = 2;
  const std::unique_ptr<PolicyTrainer> trainer = MakeTrainer(options);
  const std::vector<TrainingSample> samples = Sample(*trainer, 8);
  const UpdateMetrics metrics = trainer->TrainEpoch(samples, Advantages(), 0).value();
  EXPECT_EQ(metrics.optimizer_steps, 4);
  EXPECT_EQ(metrics.logprob_abs_diff_max, 0);
  EXPECT_GT(metrics.approx_kl, 0);
  EXPECT_GT(metrics.clip_fraction, 0);
}

TEST(DdpoTrainerTest, ReportsHowFarForeignLogProbabilitiesAre) {
  const std::unique_ptr<PolicyTrainer> trainer = MakeTrainer(SmallTrainer());
  std::vector<TrainingSample> samples = Sample(*trainer, 8);
  for (TrainingSample& sample : samples) {
    for (float& log_prob : sample.log_probs) log_prob += 0.25f;
  }
  const UpdateMetrics metrics = trainer->TrainEpoch(samples, Advantages(), 0).value();
  EXPECT_NEAR(metrics.logprob_abs_diff_max, 0.25, 1e-5);
}

TEST(DdpoTrainerTest, ComparesStaleLogProbabilitiesWithThoseOfThePolicyThatDrewThem) {
  const std::unique_ptr<PolicyTrainer> trainer = MakeTrainer(SmallTrainer());
  const std::string drawn_by = trainer->SerializePolicy().value();
  std::vector<TrainingSample> samples = Sample(*trainer, 4);
  ASSERT_TRUE(trainer->TrainEpoch(samples, Advantages(), 0).ok());
  const std::string trained = trainer->SerializePolicy().value();
  const UpdateMetrics metrics = trainer->TrainEpoch(samples, Advantages(), 1).value();
  EXPECT_TRUE(std::isnan(metrics.logprob_abs_diff_max));
  for (int64_t epoch = 1; epoch <= kNumSteps; ++epoch) {
    EXPECT_EQ(trainer->LogProbDifference(samples, drawn_by, epoch).value(), 0);
  }
  EXPECT_GT(trainer->LogProbDifference(samples, trained, 1).value(), 1e-5);
  samples[1].log_probs[2] += 0.25f;  // sample 1 is looked at there in epoch 1
  EXPECT_NEAR(trainer->LogProbDifference(samples, drawn_by, 1).value(), 0.25, 1e-5);
}

TEST(DdpoTrainerTest, HasTheSameBitsForAnyNumberOfWorkers) {
  std::string expected;
  for (int workers : {1, 2, 3}) {
    DdpoTrainerOptions options = SmallTrainer();
    options.parallel_backwards = workers;
    options.inner_epochs = 2;
    const std::unique_ptr<PolicyTrainer> trainer = MakeTrainer(options);
    const std::vector<TrainingSample> samples = Sample(*trainer, 8);
    ASSERT_TRUE(trainer->TrainEpoch(samples, Advantages(), 5).ok());
    const std::string policy = trainer->SerializePolicy().value();
    if (expected.empty()) expected = policy;
    EXPECT_EQ(policy, expected) << workers;
  }
}

TEST(DdpoTrainerTest, GoesOnFromARestoredStateWithTheSameBits) {
  const std::unique_ptr<PolicyTrainer> original = MakeTrainer(SmallTrainer());
  const std::vector<TrainingSample> samples = Sample(*original, 8);
  ASSERT_TRUE(original->TrainEpoch(samples, Advantages(), 0).ok());
  const std::string state = original->SerializeState().value();
  DdpoTrainerOptions options = SmallTrainer();
  options.parallel_backwards = 2;
  const std::unique_ptr<PolicyTrainer> resumed = MakeTrainer(options);
  ASSERT_TRUE(resumed->RestoreState(state).ok());
  EXPECT_EQ(resumed->SerializeState().value(), state);
  ASSERT_TRUE(original->TrainEpoch(samples, Advantages(), 1).ok());
  ASSERT_TRUE(resumed->TrainEpoch(samples, Advantages(), 1).ok());
  EXPECT_EQ(resumed->SerializePolicy().value(), original->SerializePolicy().value());
  EXPECT_EQ(resumed->SerializeState().value(), original->SerializeState().value());
}

TEST(DdpoTrainerTest, RestoresTheStateOfAFreshTrainer) {
  const std::unique_ptr<PolicyTrainer> trainer = MakeTrainer(SmallTrainer());
  const std::string fresh = trainer->SerializeState().value();
  const std::vector<TrainingSample> samples = Sample(*trainer, 8);
  ASSERT_TRUE(trainer->TrainEpoch(samples, Advantages(), 0).ok());
  EXPECT_NE(trainer->SerializeState().value(), fresh);
  ASSERT_TRUE(trainer->RestoreState(fresh).ok());
  EXPECT_EQ(trainer->SerializeState().value(), fresh);
}

TEST(DdpoTrainerTest, RefusesAStateThatDoesNotFitAndKeepsItsOwn) {
  const std::unique_ptr<PolicyTrainer> trainer = MakeTrainer(SmallTrainer());
  const std::string state = trainer->SerializeState().value();
  DdpoTrainerOptions other = SmallTrainer();
  other.lora_rank = 3;
  EXPECT_FALSE(trainer->RestoreState(MakeTrainer(other)->SerializeState().value()).ok());
  EXPECT_FALSE(trainer->RestoreState("garbage").ok());
  EXPECT_THAT(std::string(trainer->RestoreState(trainer->SerializePolicy().value()).message()),
              HasSubstr("`format` is not ddpo_trainer_state.v1"));
  EXPECT_EQ(trainer->SerializeState().value(), state);
}

TEST(DdpoTrainerTest, ALossThatIsNotANumberNamesTheMinibatch) {
  const std::unique_ptr<PolicyTrainer> trainer = MakeTrainer(SmallTrainer());
  std::vector<TrainingSample> samples = Sample(*trainer, 8);
  for (TrainingSample& sample : samples) {
    sample.latents[0] = std::numeric_limits<float>::quiet_NaN();
  }
  const absl::Status status = trainer->TrainEpoch(samples, Advantages(), 7).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(
      std::string(status.message()),
      AllOf(HasSubstr("epoch 7, inner epoch 0, optimizer step 0: minibatch 0"), HasSubstr("nan")));
}

TEST(DdpoTrainerTest, APolicyThatIsNotFiniteIsNotPublished) {
  const std::unique_ptr<PolicyTrainer> trainer = MakeTrainer(SmallTrainer());
  SafetensorsContents state = ParseSafetensors(trainer->SerializeState().value()).value();
  state.tensors.begin()->second.fill_(std::numeric_limits<float>::infinity());
  ASSERT_TRUE(trainer->RestoreState(SerializeSafetensors(state.tensors, state.metadata)).ok());
  const absl::Status status = trainer->SerializePolicy().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(status.message()), HasSubstr("lora_A.weight is not finite"));
}

TEST(DdpoTrainerTest, SaysWhenAnUpdateChangedNothing) {
  DdpoTrainerOptions options = SmallTrainer();
  options.policy.optimizer.weight_decay = 0;
  const std::unique_ptr<PolicyTrainer> trainer = MakeTrainer(options);
  const std::vector<TrainingSample> samples = Sample(*trainer, 8);
  const UpdateMetrics metrics =
      trainer->TrainEpoch(samples, std::vector<double>(8, 0.0), 0).value();
  EXPECT_EQ(metrics.grad_norm, 0);
  EXPECT_FALSE(metrics.weights_changed);
}

// The gradient flows: an update towards a sample makes its steps more likely.
TEST(DdpoTrainerTest, AnUpdateMakesWhatHadAnAdvantageMoreLikely) {
  DdpoTrainerOptions options = SmallTrainer();
  // A small step: the first-order change dominates.
  options.policy.optimizer.learning_rate = 1e-4;
  const std::unique_ptr<PolicyTrainer> trainer = MakeTrainer(options);
  const std::vector<TrainingSample> samples = Sample(*trainer, 8);
  const std::vector<double> advantages(8, 1.0);
  ASSERT_TRUE(trainer->TrainEpoch(samples, advantages, 0).ok());
  DdpoTrainerOptions measure = SmallTrainer();
  measure.step.minibatch_size = 8;
  const std::unique_ptr<PolicyTrainer> observer = MakeTrainer(measure);
  ASSERT_TRUE(observer->RestoreState(trainer->SerializeState().value()).ok());
  EXPECT_GT(observer->TrainEpoch(samples, advantages, 1)->ratio_mean, 1);
}

// Whether a sample trains at a step shows in whether its log-probability there makes a difference.
TEST(DdpoTrainerTest, TrainsOnAFractionOfTheTimesteps) {
  DdpoTrainerOptions options = SmallTrainer();
  options.timestep_fraction = 0.5;
  options.step.minibatch_size = 8;
  const std::unique_ptr<PolicyTrainer> trainer = MakeTrainer(options);
  const std::string fresh = trainer->SerializeState().value();
  std::vector<TrainingSample> samples = Sample(*trainer, 8);
  const auto train = [&] {
    EXPECT_TRUE(trainer->RestoreState(fresh).ok());
    EXPECT_TRUE(trainer->TrainEpoch(samples, Advantages(), 0)->weights_changed);
    return trainer->SerializePolicy().value();
  };
  const std::string expected = train();
  std::set<std::vector<int>> choices;
  for (TrainingSample& sample : samples) {
    std::vector<int> trained_at;
    for (int step = 0; step < kNumSteps; ++step) {
      const float log_prob = std::exchange(sample.log_probs[step], sample.log_probs[step] + 1);
      if (train() != expected) trained_at.push_back(step);
      sample.log_probs[step] = log_prob;
    }
    EXPECT_THAT(trained_at, SizeIs(kNumSteps / 2));
    choices.insert(trained_at);
  }
  // Each sample has timesteps of its own.
  EXPECT_GT(choices.size(), 1);
}

TEST(DdpoTrainerTest, NeverTrainsAtTheStepsThatAreSkipped) {
  DdpoTrainerOptions options = SmallTrainer();
  const std::unique_ptr<PolicyTrainer> sampler = MakeTrainer(options);
  std::vector<TrainingSample> samples = Sample(*sampler, 8);
  const auto weights_after = [&] {
    options.skip_last_steps = 1;
    const std::unique_ptr<PolicyTrainer> trainer = MakeTrainer(options);
    EXPECT_TRUE(trainer->TrainEpoch(samples, Advantages(), 0)->weights_changed);
    return trainer->SerializePolicy().value();
  };
  const std::string before = weights_after();
  for (TrainingSample& sample : samples) sample.log_probs.back() += 1;
  EXPECT_EQ(weights_after(), before);
  for (TrainingSample& sample : samples) sample.log_probs.front() += 1;
  EXPECT_NE(weights_after(), before);
}

TEST(DdpoTrainerTest, RefusesSamplesOfAnotherShape) {
  const std::unique_ptr<PolicyTrainer> trainer = MakeTrainer(SmallTrainer());
  std::vector<TrainingSample> samples = Sample(*trainer, 4);
  samples[5].latents.pop_back();
  const absl::Status status = trainer->TrainEpoch(samples, Advantages(), 0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("sample 1 of task batch-1 has 319 latent values"),
                    HasSubstr("expected 320 ([5,4,4,4])")));
  EXPECT_FALSE(trainer->TrainEpoch({}, {}, 0).ok());
  EXPECT_FALSE(trainer->TrainEpoch(samples, {1.0}, 0).ok());
}

TEST(DdpoTrainerTest, RefusesOptionsOutOfRange) {
  const auto message = [](void (*damage)(DdpoTrainerOptions&)) {
    DdpoTrainerOptions options = SmallTrainer();
    damage(options);
    return std::string(CreateDdpoTrainer(options, LoadTinyPipeline()).status().message());
  };
  EXPECT_THAT(message([](DdpoTrainerOptions& o) { o.step.minibatch_size = 0; }),
              HasSubstr("minibatch_size is 0"));
  EXPECT_THAT(message([](DdpoTrainerOptions& o) { o.timestep_fraction = 0; }),
              HasSubstr("timestep_fraction is 0"));
  EXPECT_THAT(message([](DdpoTrainerOptions& o) { o.skip_last_steps = 1000; }),
              HasSubstr("skip_last_steps is 1000"));
  EXPECT_THAT(message([](DdpoTrainerOptions& o) { o.step.objective.name = "ppo"; }),
              HasSubstr("“ppo”"));
  EXPECT_THAT(message([](DdpoTrainerOptions& o) { o.step.objective.num_steps = 2000; }),
              HasSubstr("number of denoising steps is 2000"));
}

}  // namespace
}  // namespace ddpo
