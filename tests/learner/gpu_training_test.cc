// The learner and the sampler on a GPU against the same on the CPU, which the other tests compare
// with Python.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/learner/small_trainer.h"
#include "tests/testing/gpus.h"

namespace ddpo {
namespace {

using ::ddpo::testing::Advantages;
using ::ddpo::testing::HasGpus;
using ::ddpo::testing::LoadTinyPipeline;
using ::ddpo::testing::MakeTrainer;
using ::ddpo::testing::Sample;
using ::ddpo::testing::SmallTrainer;
using ::ddpo::testing::UpdateDifference;

const NetworkOptions kGpu{.dtype = at::kFloat, .device = at::kCUDA};

// cuDNN rounds a convolution's float32 inputs to 10 bits of mantissa unless it is told not to.
void ComputeInFloat32() { at::globalContext().setAllowTF32CuDNN(false); }

class GpuTrainingTest : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Objectives, GpuTrainingTest,
                         ::testing::Values("ddpo_is", "ddpo_sf", "rwr"),
                         [](const auto& instance) { return instance.param; });

TEST_P(GpuTrainingTest, AnEpochMakesTheUpdateThatItMakesOnTheCpu) {
  if (!HasGpus(1)) GTEST_SKIP();
  ComputeInFloat32();
  DdpoTrainerOptions options = SmallTrainer();
  options.step.objective.name = GetParam();
  // As in rank_training_test.cc.
  options.policy.optimizer.epsilon = 1e-4;
  const std::unique_ptr<PolicyTrainer> cpu = MakeTrainer(options);
  const std::unique_ptr<PolicyTrainer> gpu = MakeTrainer(options, kGpu);
  const std::string start = cpu->SerializePolicy().value();
  ASSERT_EQ(gpu->SerializePolicy().value(), start);
  const std::vector<TrainingSample> samples = Sample(*cpu, 2);
  ASSERT_TRUE(cpu->TrainEpoch(samples, Advantages(), 0).ok());
  const auto update = gpu->TrainEpoch(samples, Advantages(), 0);
  ASSERT_TRUE(update.ok()) << update.status();
  EXPECT_LE(UpdateDifference(start, cpu->SerializePolicy().value(), gpu->SerializePolicy().value()),
            1e-2);
}

TEST(GpuSamplingTest, DrawsTheTrajectoryThatItDrawsOnTheCpu) {
  if (!HasGpus(1)) GTEST_SKIP();
  ComputeInFloat32();
  const auto denoise = [](const NetworkOptions& network) {
    const std::unique_ptr<Pipeline> pipeline = LoadTinyPipeline(network);
    return pipeline
        ->Denoise({"a cat", "an ant"}, pipeline->DrawNoise({1, 2}, 4), {.num_steps = 4}, nullptr)
        .value();
  };
  const Trajectory cpu = denoise({}), gpu = denoise(kGpu);
  EXPECT_LE((cpu.latents - gpu.latents.cpu()).abs().max().item<float>(), 1e-3);
  EXPECT_LE((cpu.log_probs - gpu.log_probs.cpu()).abs().max().item<float>(), 1e-3);
}

}  // namespace
}  // namespace ddpo
