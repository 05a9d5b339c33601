// Ranks over Gloo against one rank: the same batch gives the same update.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/tensors/safetensors.h"
#include "learner/collective/collective.h"
#include "learner/policy_gradient_epoch.h"
#include "learner/rank_mean.h"
#include "tests/learner/collective/run_ranks.h"
#include "tests/learner/small_trainer.h"

namespace ddpo {
namespace {

using ::ddpo::testing::Advantages;
using ::ddpo::testing::LoadTinyPipeline;
using ::ddpo::testing::MakeTrainer;
using ::ddpo::testing::RunRanks;
using ::ddpo::testing::Sample;
using ::ddpo::testing::SmallTrainer;
using ::ddpo::testing::Together;
using ::ddpo::testing::UpdateDifference;

// With AdamW's usual 1e-8 an element whose gradient is next to zero takes a whole step along the
// sign of its rounding error; so the steps would not tell how near the gradients are.
constexpr double kEpsilon = 1e-4;

// The rank's share: every size-th task, of 2 samples each.
template <typename T>
std::vector<T> Share(const std::vector<T>& all, int rank, int size) {
  std::vector<T> share;
  for (size_t i = 0; i < all.size(); ++i) {
    if (static_cast<int>(i / 2) % size == rank) share.push_back(all[i]);
  }
  return share;
}

struct Case {
  const char* objective;
  int ranks;
};

class RankTrainingTest : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Objectives, RankTrainingTest,
                         ::testing::Values(Case{"ddpo_is", 2}, Case{"ddpo_is", 4},
                                           Case{"ddpo_sf", 2}, Case{"rwr", 2}, Case{"rwr", 4},
                                           Case{"rwr_sparse", 4}),
                         [](const auto& test) {
                           return std::string(test.param.objective) + "_on_" +
                                  std::to_string(test.param.ranks) + "_ranks";
                         });

// Whole epochs whose optimizer steps take all samples, so that all sizes take the same batches.
TEST_P(RankTrainingTest, RanksMakeTheUpdateOfOneRankAndRepeatItToTheBit) {
  const auto [objective, size] = GetParam();
  DdpoTrainerOptions options = SmallTrainer();
  options.step.objective.name = objective;
  options.policy.optimizer.epsilon = kEpsilon;
  options.step.minibatch_size = 2;
  options.gradient_accumulation = 4;
  options.inner_epochs = std::string(objective) == "ddpo_sf" ? 1 : 3;
  const std::unique_ptr<PolicyTrainer> one = MakeTrainer(options);
  const std::string start = one->SerializePolicy().value();
  const std::vector<TrainingSample> samples = Sample(*one, 2);
  // Sparse weights: a rank may have no sample with a weight.
  const std::vector<double> weights = std::string(objective) == "rwr_sparse"
                                          ? std::vector<double>{1, 0, 0, 0, 0, 1, 0, 0}
                                          : Advantages();
  const UpdateMetrics metrics_of_one = one->TrainEpoch(samples, weights, 3).value();

  std::vector<std::string> policies(2 * size);
  std::vector<UpdateMetrics> metrics(2 * size);
  for (int repetition = 0; repetition < 2; ++repetition) {
    RunRanks(size, {}, Together([&](Collective& collective) {
               DdpoTrainerOptions of_rank = options;
               of_rank.gradient_accumulation = 4 / size;
               of_rank.rank = collective.rank();
               of_rank.rank_mean = RankMean(&collective);
               const std::unique_ptr<PolicyTrainer> trainer = MakeTrainer(of_rank);
               const auto update = trainer->TrainEpoch(Share(samples, collective.rank(), size),
                                                       Share(weights, collective.rank(), size), 3);
               ASSERT_TRUE(update.ok()) << update.status();
               const int index = repetition * size + collective.rank();
               metrics[index] = *update;
               policies[index] = trainer->SerializePolicy().value();
             }));
  }
  double loss = 0;
  for (int index = 0; index < 2 * size; ++index) {
    EXPECT_EQ(policies[index], policies[0]) << index;
    EXPECT_EQ(metrics[index].optimizer_steps, metrics_of_one.optimizer_steps);
    loss += metrics[index].loss / (2 * size);
  }
  EXPECT_NEAR(loss, metrics_of_one.loss, 1e-4 * std::abs(metrics_of_one.loss) + 1e-6);
  // The ranks add float32 gradients in another order than one rank does.
  EXPECT_LE(UpdateDifference(start, one->SerializePolicy().value(), policies[0]), 1e-4);
}

// Many optimizer steps: a step of R ranks takes the samples that each of them has next.
TEST(RankPassTest, APassOfTwoRanksIsOneRanksPassOverTheirInterleavedSamples) {
  constexpr int kRanks = 2;
  const std::unique_ptr<PolicyTrainer> sampler = MakeTrainer(SmallTrainer());
  const std::vector<TrainingSample> samples = Sample(*sampler, 2);
  const std::unique_ptr<Pipeline> pipeline = LoadTinyPipeline();
  PolicyGradientOptions options = SmallTrainer().step;
  options.minibatch_size = 2;
  const auto pass = [&](const std::vector<TrainingSample>& taken,
                        const std::vector<double>& advantages, int accumulation,
                        Collective* collective) {
    PolicyGradientOptions of_rank = options;
    of_rank.all_reduce = RankMean(collective);
    const EpochTensors tensors =
        EpochTensors::Create(*pipeline, testing::kNumSteps, {taken, advantages, 0}).value();
    const auto count = static_cast<int64_t>(taken.size());
    const PassOrder order{
        at::arange(count, at::kLong),
        at::arange(testing::kNumSteps, at::kLong).expand({count, testing::kNumSteps}).contiguous()};
    TrainablePolicy policy(RandomLora(pipeline->unet(), 2, 2, 42),
                           {.optimizer = {.learning_rate = 1e-2, .epsilon = kEpsilon}});
    GradientWorkers workers(1);
    EpochMetrics metrics;
    EXPECT_TRUE(PolicyGradientPass(*pipeline, tensors, order, of_rank, accumulation, workers,
                                   policy, metrics)
                    .ok());
    EXPECT_EQ(metrics.Mean().optimizer_steps, 2);
    return policy.SerializePolicy().value();
  };
  // Tasks 0, 1, 2, 3 in turn go to ranks 0, 1, 0, 1, and a step takes a task of each.
  const std::string one = pass(samples, Advantages(), kRanks, nullptr);
  std::vector<std::string> policies(kRanks);
  RunRanks(kRanks, {}, Together([&](Collective& collective) {
             policies[collective.rank()] =
                 pass(Share(samples, collective.rank(), kRanks),
                      Share(Advantages(), collective.rank(), kRanks), 1, &collective);
           }));
  EXPECT_EQ(policies[0], policies[1]);
  EXPECT_LE(UpdateDifference(sampler->SerializePolicy().value(), one, policies[0]), 1e-4);
}

TEST(RankPassTest, AGradientThatIsNotFiniteOnOneRankFailsAllForTheSameReason) {
  const std::unique_ptr<PolicyTrainer> sampler = MakeTrainer(SmallTrainer());
  std::vector<TrainingSample> samples = Sample(*sampler, 2);
  samples[2].latents[0] = std::numeric_limits<float>::quiet_NaN();  // task 1: rank 1's
  std::vector<absl::Status> statuses(2);
  RunRanks(2, {}, Together([&](Collective& collective) {
             DdpoTrainerOptions options = SmallTrainer();
             options.rank = collective.rank();
             options.rank_mean = RankMean(&collective);
             statuses[collective.rank()] =
                 MakeTrainer(options)
                     ->TrainEpoch(Share(samples, collective.rank(), 2),
                                  Share(Advantages(), collective.rank(), 2), 0)
                     .status();
             EXPECT_FALSE(collective.failed());
           }));
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange) << status;
  }
}

}  // namespace
}  // namespace ddpo
