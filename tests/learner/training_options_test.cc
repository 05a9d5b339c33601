// The trainer's options beyond the paper: each does what it says.

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "common/tensors/safetensors.h"
#include "tests/learner/small_trainer.h"
#include "tests/testing/golden_fixture.h"

namespace ddpo {
namespace {

using ::ddpo::testing::Advantages;
using ::ddpo::testing::kNumSteps;
using ::ddpo::testing::LoadTinyPipeline;
using ::ddpo::testing::MakeTrainer;
using ::ddpo::testing::MaxAbsDiff;
using ::ddpo::testing::Sample;
using ::ddpo::testing::SampleTrajectories;
using ::ddpo::testing::SmallTrainer;
using ::testing::AllOf;
using ::testing::HasSubstr;

NamedTensors Weights(const std::string& policy) { return ParseSafetensors(policy).value().tensors; }

// The policy after one epoch of training on the fresh trainer's own samples.
std::string TrainOnce(const DdpoTrainerOptions& options) {
  const std::unique_ptr<PolicyTrainer> trainer = MakeTrainer(options);
  const std::vector<TrainingSample> samples = Sample(*MakeTrainer(SmallTrainer()), 8);
  EXPECT_TRUE(trainer->TrainEpoch(samples, Advantages(), 0).ok());
  return trainer->SerializePolicy().value();
}

// How far the policy's product B A is from the base model's zero, over all projections.
double DistanceFromBase(const std::string& policy) {
  double sum = 0;
  for (const auto& [key, tensor] : Weights(policy)) {
    if (key.ends_with("lora_B.weight")) sum += tensor.square().sum().item<double>();
  }
  return std::sqrt(sum);
}

TEST(KlToTheBaseModelTest, IsZeroForTheBaseModelAndKeepsThePolicyNearIt) {
  DdpoTrainerOptions options = SmallTrainer();
  options.inner_epochs = 4;
  const auto train = [&](double coefficient) {
    options.step.objective.kl_coefficient = coefficient;
    const std::unique_ptr<PolicyTrainer> trainer = MakeTrainer(options);
    const std::vector<TrainingSample> samples = Sample(*MakeTrainer(SmallTrainer()), 8);
    const UpdateMetrics metrics = trainer->TrainEpoch(samples, Advantages(), 0).value();
    // A measure after the fact, of the first step of another epoch.
    const UpdateMetrics after = trainer->TrainEpoch(samples, Advantages(), 1).value();
    EXPECT_EQ(metrics.reference_kl > 0, coefficient > 0);
    return std::pair(DistanceFromBase(trainer->SerializePolicy().value()), after.reference_kl);
  };
  const auto [weak_distance, weak_kl] = train(1e-6);
  const auto [strong_distance, strong_kl] = train(1e3);
  EXPECT_LT(strong_distance, weak_distance);
  EXPECT_LT(strong_kl, weak_kl);

  // Before its first step the policy is the base model.
  options.inner_epochs = 1;
  options.step.minibatch_size = 8;
  const std::vector<TrainingSample> samples = Sample(*MakeTrainer(SmallTrainer()), 8);
  EXPECT_EQ(MakeTrainer(options)->TrainEpoch(samples, Advantages(), 0)->reference_kl, 0);
}

TEST(DecoupledObjectiveTest, TrainsOnFreshSamplesAsThePlainOne) {
  DdpoTrainerOptions options = SmallTrainer();
  options.inner_epochs = 2;
  const std::string plain = TrainOnce(options);
  options.step.objective.decoupled = true;
  EXPECT_TRUE(TrainOnce(options) == plain);
}

// A policy that has moved since it drew the samples: the plain objective clips them away, the
// decoupled one measures from where the update starts.
TEST(DecoupledObjectiveTest, LearnsFromStaleSamplesAroundTheStartOfTheUpdate) {
  DdpoTrainerOptions options = SmallTrainer();
  options.step.minibatch_size = 8;
  const std::unique_ptr<PolicyTrainer> mover = MakeTrainer(options);
  const std::vector<TrainingSample> samples = Sample(*mover, 8);
  ASSERT_TRUE(mover->TrainEpoch(samples, Advantages(), 0).ok());
  const std::string moved = mover->SerializeState().value();
  const auto train = [&](bool decoupled) {
    options.step.objective.decoupled = decoupled;
    const std::unique_ptr<PolicyTrainer> trainer = MakeTrainer(options);
    EXPECT_TRUE(trainer->RestoreState(moved).ok());
    // The samples are of version 0, this is epoch 1.
    return trainer->TrainEpoch(samples, Advantages(), 1).value();
  };
  EXPECT_GT(train(false).clip_fraction, 0);
  const UpdateMetrics decoupled = train(true);
  EXPECT_EQ(decoupled.clip_fraction, 0);
  // Both report how far the policy is from the one that drew the samples.
  EXPECT_GT(decoupled.approx_kl, 0);
}

TEST(DetachUnconditionalTest, LetsGradientsThroughTheConditionalBranchAlone) {
  const std::unique_ptr<Pipeline> pipeline = LoadTinyPipeline();
  const at::Tensor latents = at::randn({1, 4, 4, 4});
  const at::Tensor timesteps = at::full({1}, 501, at::kLong);
  const auto predict = [&](bool detach, at::Tensor& uncond, at::Tensor& cond) {
    uncond = pipeline->EncodePrompts({""}).requires_grad_(true);
    cond = pipeline->EncodePrompts({"a cat"}).requires_grad_(true);
    const at::Tensor output =
        pipeline->PredictNoise(latents, timesteps, uncond, cond, 5.0, nullptr, detach);
    output.square().sum().backward();
    return output.detach();
  };
  at::Tensor uncond, cond, detached_uncond, detached_cond;
  const at::Tensor plain = predict(false, uncond, cond);
  EXPECT_TRUE(at::equal(predict(true, detached_uncond, detached_cond), plain));
  EXPECT_GT(uncond.grad().abs().max().item<float>(), 0);
  EXPECT_EQ(detached_uncond.grad().abs().max().item<float>(), 0);
  EXPECT_TRUE(at::equal(detached_cond.grad(), cond.grad()));
}

TEST(DetachUnconditionalTest, ReachesTheTrainer) {
  DdpoTrainerOptions options = SmallTrainer();
  const std::string plain = TrainOnce(options);
  options.step.detach_unconditional = true;
  EXPECT_TRUE(TrainOnce(options) != plain);
}

TEST(EmaTest, TheFinalPolicyIsTheAverageAndActorsGetTheWeights) {
  DdpoTrainerOptions options = SmallTrainer();
  options.policy.ema_decay = 0.75;
  options.step.minibatch_size = 8;
  const std::unique_ptr<PolicyTrainer> trainer = MakeTrainer(options);
  const std::vector<TrainingSample> samples = Sample(*trainer, 8);
  std::vector<NamedTensors> weights = {Weights(trainer->SerializePolicy().value())};
  for (int epoch = 0; epoch < 2; ++epoch) {
    ASSERT_TRUE(trainer->TrainEpoch(samples, Advantages(), epoch).ok());
    weights.push_back(Weights(trainer->SerializePolicy().value()));
  }
  for (const auto& [key, average] : Weights(trainer->SerializeFinalPolicy().value())) {
    const at::Tensor expected =
        0.75 * (0.75 * weights[0].at(key) + 0.25 * weights[1].at(key)) + 0.25 * weights[2].at(key);
    EXPECT_LE(MaxAbsDiff(average, expected), 1e-6) << key;
  }
  options.policy.ema_decay = 0;
  const std::string plain = TrainOnce(options);
  options.policy.ema_decay = 0.75;
  EXPECT_TRUE(TrainOnce(options) == plain) << "the average changes the training";
}

TEST(EmaTest, GoesOnFromACheckpointWithTheSameBits) {
  DdpoTrainerOptions options = SmallTrainer();
  options.policy.ema_decay = 0.9;
  const std::unique_ptr<PolicyTrainer> original = MakeTrainer(options);
  const std::vector<TrainingSample> samples = Sample(*original, 8);
  ASSERT_TRUE(original->TrainEpoch(samples, Advantages(), 0).ok());
  const std::unique_ptr<PolicyTrainer> resumed = MakeTrainer(options);
  ASSERT_TRUE(resumed->RestoreState(original->SerializeState().value()).ok());
  ASSERT_TRUE(original->TrainEpoch(samples, Advantages(), 1).ok());
  ASSERT_TRUE(resumed->TrainEpoch(samples, Advantages(), 1).ok());
  EXPECT_TRUE(resumed->SerializeFinalPolicy().value() == original->SerializeFinalPolicy().value());
}

// AdamW's first step has the length of the learning rate, whatever the gradient.
TEST(WarmUpTest, RaisesTheLearningRateLinearlyAlsoAcrossACheckpoint) {
  DdpoTrainerOptions options = SmallTrainer();
  options.policy.optimizer.weight_decay = 0;
  options.policy.optimizer.beta1 = options.policy.optimizer.beta2 = 0;
  options.step.minibatch_size = 8;
  const std::vector<TrainingSample> samples = Sample(*MakeTrainer(options), 8);
  const auto longest_moves = [&](int warmup_steps) {
    options.policy.warmup_steps = warmup_steps;
    std::unique_ptr<PolicyTrainer> trainer = MakeTrainer(options);
    std::vector<double> moves;
    for (int epoch = 0; epoch < 4; ++epoch) {
      const NamedTensors before = Weights(trainer->SerializePolicy().value());
      EXPECT_TRUE(trainer->TrainEpoch(samples, Advantages(), epoch).ok());
      double longest = 0;
      for (const auto& [key, tensor] : Weights(trainer->SerializePolicy().value())) {
        longest = std::max(longest, MaxAbsDiff(tensor, before.at(key)));
      }
      moves.push_back(longest);
      const std::string state = trainer->SerializeState().value();
      trainer = MakeTrainer(options);
      EXPECT_TRUE(trainer->RestoreState(state).ok());
    }
    return moves;
  };
  // Float32 weights of about 1, moved by 1e-2.
  const double rounding = 1e-6;
  for (const double move : longest_moves(0)) EXPECT_NEAR(move, 1e-2, rounding);
  const std::vector<double> warm = longest_moves(3);
  EXPECT_NEAR(warm[0], 1e-2 / 3, rounding);
  EXPECT_NEAR(warm[1], 2e-2 / 3, rounding);
  EXPECT_NEAR(warm[2], 1e-2, rounding);
  EXPECT_NEAR(warm[3], 1e-2, rounding);
}

TEST(GradientCheckpointingTest, ChangesNoBit) {
  for (const bool full_finetuning : {false, true}) {
    DdpoTrainerOptions options = SmallTrainer();
    options.full_finetuning = full_finetuning;
    options.inner_epochs = 2;
    const std::string plain = TrainOnce(options);
    options.gradient_checkpointing = true;
    EXPECT_TRUE(TrainOnce(options) == plain) << "full fine-tuning: " << full_finetuning;
    options.parallel_backwards = 3;
    EXPECT_TRUE(TrainOnce(options) == plain) << "full fine-tuning: " << full_finetuning;
  }
}

TEST(FullFinetuningTest, TrainsEveryWeightOfTheUNet) {
  DdpoTrainerOptions options = SmallTrainer();
  options.full_finetuning = true;
  options.policy.optimizer.learning_rate = 1e-3;
  const NamedTensors base =
      ReadSafetensors(testing::SourcePath(
                          "tests/goldens/pipelines/tiny/unet/diffusion_pytorch_model.safetensors"))
          .value()
          .tensors;
  const NamedTensors trained = Weights(TrainOnce(options));
  ASSERT_EQ(trained.size(), base.size());
  for (const auto& [key, tensor] : trained) {
    EXPECT_EQ(tensor.sizes(), base.at(key).sizes()) << key;
    EXPECT_GT(MaxAbsDiff(tensor, base.at(key)), 0) << key << " did not move";
  }
}

// A UNet that takes up the policy samples as the trainer computes.
TEST(FullFinetuningTest, AnotherUNetTakesUpThePolicy) {
  DdpoTrainerOptions options = SmallTrainer();
  options.full_finetuning = true;
  options.policy.optimizer.learning_rate = 1e-3;
  const std::unique_ptr<PolicyTrainer> trainer = MakeTrainer(options);
  const std::unique_ptr<Pipeline> actor = LoadTinyPipeline();
  for (int epoch = 0; epoch < 2; ++epoch) {
    SafetensorsContents policy = ParseSafetensors(trainer->SerializePolicy().value()).value();
    ASSERT_TRUE(IsUNetWeights(policy));
    ASSERT_TRUE(actor->unet().SetWeights(std::move(policy.tensors)).ok());
    const std::vector<TrainingSample> samples = SampleTrajectories(
        *actor, testing::Prompts(), 4, {.num_steps = kNumSteps}, /*lora=*/nullptr, epoch);
    const UpdateMetrics metrics = trainer->TrainEpoch(samples, Advantages(), epoch).value();
    // The trainer's kernels are others: those of frozen weights know no gradients of them.
    EXPECT_LE(metrics.logprob_abs_diff_max, 1e-4);
  }
}

TEST(FullFinetuningTest, AUNetRefusesWeightsThatDoNotFitAndKeepsItsOwn) {
  const std::unique_ptr<Pipeline> pipeline = LoadTinyPipeline();
  DdpoTrainerOptions options = SmallTrainer();
  options.full_finetuning = true;
  NamedTensors weights = Weights(MakeTrainer(options)->SerializePolicy().value());
  const auto predict = [&] {
    return pipeline->PredictNoise(at::ones({1, 4, 4, 4}), at::full({1}, 501, at::kLong),
                                  pipeline->EncodePrompts({""}), pipeline->EncodePrompts({"a cat"}),
                                  5.0, nullptr);
  };
  const at::Tensor before = predict();
  weights.erase("conv_in.weight");
  EXPECT_THAT(std::string(pipeline->unet().SetWeights(weights).message()),
              HasSubstr("conv_in.weight"));
  EXPECT_TRUE(at::equal(predict(), before));
}

TEST(FullFinetuningTest, GoesOnFromACheckpointWithTheSameBits) {
  DdpoTrainerOptions options = SmallTrainer();
  options.full_finetuning = true;
  options.policy.ema_decay = 0.5;
  const std::unique_ptr<PolicyTrainer> original = MakeTrainer(options);
  const std::vector<TrainingSample> samples = Sample(*MakeTrainer(SmallTrainer()), 8);
  ASSERT_TRUE(original->TrainEpoch(samples, Advantages(), 0).ok());
  const std::unique_ptr<PolicyTrainer> resumed = MakeTrainer(options);
  ASSERT_TRUE(resumed->RestoreState(original->SerializeState().value()).ok());
  ASSERT_TRUE(original->TrainEpoch(samples, Advantages(), 1).ok());
  ASSERT_TRUE(resumed->TrainEpoch(samples, Advantages(), 1).ok());
  EXPECT_TRUE(resumed->SerializePolicy().value() == original->SerializePolicy().value());
  EXPECT_TRUE(resumed->SerializeFinalPolicy().value() == original->SerializeFinalPolicy().value());
}

class BaseWeightsTest : public ::testing::TestWithParam<at::ScalarType> {};
INSTANTIATE_TEST_SUITE_P(HalfTypes, BaseWeightsTest, ::testing::Values(at::kHalf, at::kBFloat16));

// Frozen weights in half the bytes: what is learnt and what is compared stay float32, and the first
// ratio is 1 to the bit.
TEST_P(BaseWeightsTest, LoraLatentsAndLogProbabilitiesStayFloat32) {
  const auto load = [] {
    return Pipeline::Load(testing::SourcePath("tests/goldens/pipelines/tiny"),
                          {.dtype = GetParam()})
        .value();
  };
  const std::unique_ptr<PolicyTrainer> trainer = CreateDdpoTrainer(SmallTrainer(), load()).value();
  const std::unique_ptr<Pipeline> actor = load();
  for (int epoch = 0; epoch < 2; ++epoch) {
    const LoraWeights lora =
        LoraFromContents(actor->unet(),
                         ParseSafetensors(trainer->SerializePolicy().value()).value())
            .value();
    for (const auto& [key, tensor] : lora.tensors) EXPECT_EQ(tensor.scalar_type(), at::kFloat);
    const DenoiseOptions denoise{.num_steps = kNumSteps};
    const Trajectory trajectory =
        actor->Denoise({"a cat"}, actor->DrawNoise({1}, kNumSteps), denoise, &lora).value();
    EXPECT_EQ(trajectory.latents.scalar_type(), at::kFloat);
    EXPECT_EQ(trajectory.log_probs.scalar_type(), at::kFloat);
    // Not rounded to the base weights' type on the way.
    EXPECT_FALSE(at::equal(trajectory.latents, trajectory.latents.to(GetParam()).to(at::kFloat)));
    const std::vector<TrainingSample> samples =
        SampleTrajectories(*actor, testing::Prompts(), 4, denoise, &lora, epoch);
    const UpdateMetrics metrics = trainer->TrainEpoch(samples, Advantages(), epoch).value();
    EXPECT_EQ(metrics.logprob_abs_diff_max, 0);
    EXPECT_TRUE(metrics.weights_changed);
  }
}

TEST(RestoreTest, NamesTheOptionsInWhichTheStatesTrainerDiffered) {
  const std::string state = MakeTrainer(SmallTrainer())->SerializeState().value();
  const auto message = [&](void (*change)(DdpoTrainerOptions&)) {
    DdpoTrainerOptions options = SmallTrainer();
    change(options);
    const absl::Status status = MakeTrainer(options)->RestoreState(state);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(message([](DdpoTrainerOptions& o) { o.lora_rank = 3; }),
              HasSubstr("lora_rank is 2, expected 3"));
  EXPECT_THAT(message([](DdpoTrainerOptions& o) { o.lora_alpha = 7; }),
              HasSubstr("lora_alpha is 2.0, expected 7.0"));
  EXPECT_THAT(message([](DdpoTrainerOptions& o) {
                o.policy.ema_decay = 0.5;
                o.step.objective.name = "rwr";
              }),
              AllOf(HasSubstr("ema_decay is 0.0, expected 0.5"),
                    HasSubstr("objective is \"ddpo_is\", expected \"rwr\"")));
  EXPECT_THAT(message([](DdpoTrainerOptions& o) { o.full_finetuning = true; }),
              HasSubstr("full_finetuning is false, expected true"));
  EXPECT_THAT(message([](DdpoTrainerOptions& o) { o.run_seed = 7; }),
              HasSubstr("run_seed is 42, expected 7"));
  // What leaves the state's meaning as it is may change.
  DdpoTrainerOptions options = SmallTrainer();
  options.parallel_backwards = 3;
  options.gradient_checkpointing = true;
  EXPECT_TRUE(MakeTrainer(options)->RestoreState(state).ok());
}

DdpoTrainerOptions SmallRwrTrainer() {
  DdpoTrainerOptions options = SmallTrainer();
  options.step.objective.name = "rwr";
  options.inner_epochs = 2;
  return options;
}

TEST(RwrTrainerTest, LearnsFromTheImagesOfTheFinalLatentsAlone) {
  const auto train = [](std::vector<TrainingSample> samples, const std::vector<double>& weights) {
    const std::unique_ptr<PolicyTrainer> trainer = MakeTrainer(SmallRwrTrainer());
    const UpdateMetrics metrics = trainer->TrainEpoch(samples, weights, 0).value();
    EXPECT_TRUE(metrics.weights_changed);
    EXPECT_GT(metrics.loss, 0);
    EXPECT_EQ(metrics.optimizer_steps, 4);
    return trainer->SerializePolicy().value();
  };
  const std::vector<double> weights = {1, 0.5, 2, 0.25, 1, 1, 1.5, 0.75};
  const std::vector<TrainingSample> samples = Sample(*MakeTrainer(SmallTrainer()), 8);
  const std::string expected = train(samples, weights);
  EXPECT_TRUE(train(samples, weights) == expected);
  std::vector<TrainingSample> changed = samples;
  for (TrainingSample& sample : changed) sample.latents.front() += 1;
  EXPECT_TRUE(train(changed, weights) == expected);
  changed[0].latents.back() += 1;
  EXPECT_TRUE(train(changed, weights) != expected);
}

TEST(RwrTrainerTest, LeavesOutSamplesOfWeightZero) {
  const auto train = [](const std::vector<TrainingSample>& samples) {
    DdpoTrainerOptions options = SmallRwrTrainer();
    options.step.objective.name = "rwr_sparse";
    const std::unique_ptr<PolicyTrainer> trainer = MakeTrainer(options);
    const UpdateMetrics metrics =
        trainer->TrainEpoch(samples, {0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0}, 0).value();
    // Two samples are one step of each pass.
    EXPECT_EQ(metrics.optimizer_steps, 2);
    return trainer->SerializePolicy().value();
  };
  std::vector<TrainingSample> samples = Sample(*MakeTrainer(SmallTrainer()), 8);
  const std::string expected = train(samples);
  samples[0].latents.back() += 1;
  EXPECT_TRUE(train(samples) == expected);
  samples[1].latents.back() += 1;
  EXPECT_TRUE(train(samples) != expected);
}

TEST(RwrTrainerTest, DrawsNewNoiseInEachPassAndEpoch) {
  const std::vector<TrainingSample> samples = Sample(*MakeTrainer(SmallTrainer()), 8);
  const std::vector<double> weights(8, 1.0);
  const auto loss = [&](int inner_epochs, int64_t epoch) {
    DdpoTrainerOptions options = SmallRwrTrainer();
    options.inner_epochs = inner_epochs;
    // The weights hardly move, so that only the noise makes a difference.
    options.policy.optimizer.learning_rate = 1e-12;
    return MakeTrainer(options)->TrainEpoch(samples, weights, epoch)->loss;
  };
  EXPECT_GT(std::abs(loss(1, 0) - loss(1, 1)), 1e-6);
  EXPECT_GT(std::abs(loss(1, 0) - loss(2, 0)), 1e-6);
}

TEST(RwrTrainerTest, RefusesAnEpochWithoutAnyWeight) {
  const std::vector<TrainingSample> samples = Sample(*MakeTrainer(SmallTrainer()), 8);
  const absl::Status status =
      MakeTrainer(SmallRwrTrainer())->TrainEpoch(samples, std::vector<double>(8, 0.0), 3).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("epoch 3, RWR: no sample has a weight"));
}

}  // namespace
}  // namespace ddpo
