// From the configuration's text to the numbers that samples are weighed by: every option arrives
// where it is to act.

#include "learner/sample_weighting_factory.h"

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/config/config.h"
#include "learner/advantages.h"
#include "learner/rwr_weights.h"

namespace ddpo {
namespace {

constexpr char kBase[] = R"(
model: somewhere
prompts: {list: [a cat, an ant]}
training: {stat_buffer_size: 5, stat_min_count: 3}
)";

// Two epochs' numbers, so that what is remembered between them counts too.
std::vector<std::vector<double>> Weigh(SampleWeighting& weighting) {
  const std::vector<std::string> prompts = {"a cat", "an ant", "a cat", "an ant", "a cat", "a cat"};
  return {weighting.Update(prompts, {1, -2, 4, 0.5, -1, 7}).value(),
          weighting.Update(prompts, {-3, 1.5, 2, 2.5, 0, 9}).value()};
}

std::vector<std::vector<double>> WeighConfigured(const std::vector<std::string>& overrides) {
  const auto config = ParseConfig(kBase, "test", overrides);
  EXPECT_TRUE(config.ok()) << config.status();
  return Weigh(*CreateSampleWeighting(config->training()).value());
}

using Make = std::function<std::unique_ptr<SampleWeighting>()>;

Make Advantages(const AdvantageOptions& options) {
  return [options] {
    return std::make_unique<PromptStatistics>(PromptStatistics::Create(options).value());
  };
}
Make Rwr(const RwrOptions& options) {
  return [options] { return CreateRwrWeighting(options); };
}
Make SparseRwr(const SparseRwrOptions& options) {
  return [options] { return CreateSparseRwrWeighting(options); };
}

struct Row {
  std::string option;
  // Without which the option does nothing.
  std::vector<std::string> context;
  Make direct;
};

TEST(SampleWeightingFactoryTest, EveryOptionReachesTheWeighting) {
  const std::string rwr = "training.objective=rwr", sparse = "training.objective=rwr_sparse";
  const Row rows[] = {
      {"training.stat_buffer_size=4", {}, Advantages({.buffer_size = 4, .min_count = 3})},
      {"training.stat_min_count=5", {}, Advantages({.buffer_size = 5, .min_count = 5})},
      {"training.adv_clip=0.5", {}, Advantages({.buffer_size = 5, .min_count = 3, .clip = 0.5})},
      {rwr, {}, Rwr({})},
      {"training.rwr.beta=1", {rwr}, Rwr({.beta = 1})},
      {"training.rwr.per_prompt=true", {rwr}, Rwr({.per_prompt = true})},
      {sparse, {}, SparseRwr({})},
      {"training.rwr.percentile=20", {sparse}, SparseRwr({.percentile = 20})},
      {"training.rwr.max_samples=2",
       {sparse, "training.rwr.percentile=20"},
       SparseRwr({.percentile = 20, .max_samples = 2})},
  };
  EXPECT_EQ(WeighConfigured({}), Weigh(*Advantages({.buffer_size = 5, .min_count = 3})()));
  for (const Row& row : rows) {
    SCOPED_TRACE(row.option);
    std::vector<std::string> overrides = row.context;
    overrides.push_back(row.option);
    const auto configured = WeighConfigured(overrides);
    EXPECT_EQ(configured, Weigh(*row.direct()));
    EXPECT_NE(configured, WeighConfigured(row.context)) << "the option changes nothing";
  }
}

// The score function estimator takes advantages too.
TEST(SampleWeightingFactoryTest, BothPolicyGradientsTakeAdvantages) {
  config::v1::TrainingConfig config = ParseConfig(kBase, "test")->training();
  config.set_objective("ddpo_sf");
  EXPECT_EQ(Weigh(*CreateSampleWeighting(config).value()), WeighConfigured({}));
}

TEST(SampleWeightingFactoryTest, RefusesOptionsOutOfRange) {
  config::v1::TrainingConfig config = ParseConfig(kBase, "test")->training();
  config.set_stat_min_count(0);
  EXPECT_EQ(CreateSampleWeighting(config).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace ddpo
