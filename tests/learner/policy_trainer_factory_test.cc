// From the configuration's text to the trainer: every option arrives where it is to act.

#include "learner/policy_trainer_factory.h"

#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/config/config.h"
#include "learner/collective/single_rank.h"
#include "learner/ddpo_trainer.h"
#include "learner/rank_mean.h"
#include "tests/learner/small_trainer.h"
#include "tests/testing/gpus.h"

namespace ddpo {
namespace {

using ::ddpo::testing::Advantages;
using ::ddpo::testing::HasGpus;
using ::ddpo::testing::LoadTinyPipeline;
using ::ddpo::testing::Prompts;
using ::ddpo::testing::SampleTrajectories;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string BaseYaml() {
  return absl::StrCat("model: ", testing::SourcePath("tests/goldens/pipelines/tiny"), R"(
prompts: {list: [a cat]}
run: {seed: 7}
sampling: {num_steps: 4, batch_size: 4, samples_per_epoch: 8}
training: {learning_rate: 1e-2, minibatch_size: 4, inner_epochs: 2, lora_rank: 2}
)");
}

// What the factory is to make of a configuration.
struct Direct {
  DdpoTrainerOptions options;
  NetworkOptions network;
};

// The same as BaseYaml; what that leaves out has the same default in both.
Direct BaseDirect() {
  Direct direct;
  direct.options.run_seed = 7;
  direct.options.step.objective.num_steps = 4;
  direct.options.policy.optimizer.learning_rate = 1e-2;
  direct.options.step.minibatch_size = 4;
  direct.options.inner_epochs = 2;
  direct.options.lora_rank = 2;
  direct.options.parallel_backwards = 2;
  return direct;
}

// One option, as a user writes it and as it is to arrive.
struct Setting {
  const char* yaml;
  void (*set)(Direct& direct);
};

struct Row {
  Setting option;
  // Without which the option does nothing.
  std::vector<Setting> context = {};
};
void PrintTo(const Row& row, std::ostream* os) { *os << row.option.yaml; }

const Setting kDdpoSf{"training.objective=ddpo_sf",
                      [](Direct& d) { d.options.step.objective.name = "ddpo_sf"; }};
const Setting kDecoupled{"training.decoupled=true",
                         [](Direct& d) { d.options.step.objective.decoupled = true; }};
const Setting kAccumulate{"training.gradient_accumulation=2",
                          [](Direct& d) { d.options.gradient_accumulation = 2; }};
const Setting kOnePass{"training.inner_epochs=1", [](Direct& d) { d.options.inner_epochs = 1; }};

const std::vector<Row>& Rows() {
  static const auto& rows = *new std::vector<Row>{
      {kDdpoSf, {kAccumulate, kOnePass}},
      {{"training.objective=rwr", [](Direct& d) { d.options.step.objective.name = "rwr"; }}},
      {{"training.objective=rwr_sparse",
        [](Direct& d) { d.options.step.objective.name = "rwr_sparse"; }}},
      {{"training.clip_range=1", [](Direct& d) { d.options.step.objective.clip_range = 1; }}},
      {{"training.adv_clip=0.5", [](Direct& d) { d.options.step.objective.adv_clip = 0.5; }}},
      {{"training.kl_coefficient=10",
        [](Direct& d) { d.options.step.objective.kl_coefficient = 10; }}},
      {kDecoupled},
      {{"training.max_behaviour_weight=1.5",
        [](Direct& d) { d.options.step.objective.max_behaviour_weight = 1.5; }},
       {kDecoupled}},
      {{"training.detach_unconditional=true",
        [](Direct& d) { d.options.step.detach_unconditional = true; }}},
      {{"training.max_grad_norm=0.01", [](Direct& d) { d.options.step.max_grad_norm = 0.01; }}},
      {{"training.minibatch_size=2", [](Direct& d) { d.options.step.minibatch_size = 2; }}},
      {kAccumulate},
      {kOnePass},
      {{"training.timestep_fraction=0.5", [](Direct& d) { d.options.timestep_fraction = 0.5; }}},
      {{"training.skip_last_steps=1", [](Direct& d) { d.options.skip_last_steps = 1; }}},
      {{"training.learning_rate=2e-2",
        [](Direct& d) { d.options.policy.optimizer.learning_rate = 2e-2; }}},
      {{"training.adam_beta1=0.5", [](Direct& d) { d.options.policy.optimizer.beta1 = 0.5; }}},
      {{"training.adam_beta2=0.9", [](Direct& d) { d.options.policy.optimizer.beta2 = 0.9; }}},
      {{"training.adam_epsilon=1e-3",
        [](Direct& d) { d.options.policy.optimizer.epsilon = 1e-3; }}},
      {{"training.weight_decay=0.1",
        [](Direct& d) { d.options.policy.optimizer.weight_decay = 0.1; }}},
      {{"training.warmup_steps=3", [](Direct& d) { d.options.policy.warmup_steps = 3; }}},
      {{"training.ema_decay=0.75", [](Direct& d) { d.options.policy.ema_decay = 0.75; }}},
      {{"training.lora_rank=3", [](Direct& d) { d.options.lora_rank = 3; }}},
      {{"training.lora_alpha=6", [](Direct& d) { d.options.lora_alpha = 6; }}},
      {{"training.full_finetuning=true", [](Direct& d) { d.options.full_finetuning = true; }}},
      {{"training.gradient_checkpointing=true",
        [](Direct& d) { d.options.gradient_checkpointing = true; }}},
      {{"training.dtype=bfloat16", [](Direct& d) { d.network.dtype = at::kBFloat16; }}},
      {{"sampling.num_steps=3", [](Direct& d) { d.options.step.objective.num_steps = 3; }}},
      {{"sampling.eta=0.5", [](Direct& d) { d.options.step.objective.eta = 0.5; }}},
      {{"sampling.guidance_scale=2", [](Direct& d) { d.options.step.guidance_scale = 2; }}},
      {{"run.seed=8", [](Direct& d) { d.options.run_seed = 8; }}},
  };
  return rows;
}

config::v1::Config Parse(const std::vector<Setting>& settings) {
  std::vector<std::string> overrides;
  for (const Setting& setting : settings) overrides.emplace_back(setting.yaml);
  const auto config = ParseConfig(BaseYaml(), "test", overrides);
  EXPECT_TRUE(config.ok()) << config.status();
  return config.value_or(config::v1::Config());
}

// Of the base model. Half of them say that an older policy drew them, with other probabilities: so
// ratios lie on both sides of 1 and of every bound.
std::vector<TrainingSample> StaleSamples(int num_steps) {
  std::vector<TrainingSample> samples = SampleTrajectories(
      *LoadTinyPipeline(), Prompts(), 4, {.num_steps = num_steps}, /*lora=*/nullptr);
  const float shifts[] = {0, -0.9f, 0, 0.4f, 0, -0.5f, 0, 0.2f};
  for (size_t i = 0; i < samples.size(); ++i) {
    samples[i].policy_version = i % 2 == 0 ? 1 : 0;
    for (float& log_prob : samples[i].log_probs) log_prob += shifts[i];
  }
  return samples;
}

std::atomic<int64_t> convolutions{0};

// Counts the convolutions of all threads while it lives: how much a trainer computes.
class ConvolutionCounter {
 public:
  ConvolutionCounter() {
    convolutions = 0;
    handle_ = at::addGlobalCallback(at::RecordFunctionCallback(
        [](const at::RecordFunction& function) -> std::unique_ptr<at::ObserverContext> {
          if (std::strcmp(function.name(), "aten::convolution") == 0) ++convolutions;
          return nullptr;
        }));
  }
  ~ConvolutionCounter() { at::removeCallback(handle_); }

 private:
  at::CallbackHandle handle_;
};

// What a trainer has done after an epoch.
struct Outcome {
  std::string state;  // weights, optimizer, average
  int64_t optimizer_steps = 0;
  int64_t convolutions = 0;
  bool operator==(const Outcome&) const = default;
};
void PrintTo(const Outcome& outcome, std::ostream* os) {
  *os << outcome.state.size() << " bytes of state, " << outcome.optimizer_steps
      << " optimizer steps, " << outcome.convolutions << " convolutions";
}

// `create` returns a trainer, or an error.
template <typename Create>
Outcome Train(int num_steps, const Create& create) {
  const std::vector<TrainingSample> samples = StaleSamples(num_steps);
  Outcome outcome;
  const absl::StatusOr<std::unique_ptr<PolicyTrainer>> trainer = create();
  EXPECT_TRUE(trainer.ok()) << trainer.status();
  if (!trainer.ok()) return outcome;
  const ConvolutionCounter counter;
  const auto metrics = (*trainer)->TrainEpoch(samples, Advantages(), /*epoch=*/1);
  EXPECT_TRUE(metrics.ok()) << metrics.status();
  if (!metrics.ok()) return outcome;
  EXPECT_TRUE(metrics->weights_changed);
  outcome.optimizer_steps = metrics->optimizer_steps;
  outcome.convolutions = convolutions;
  outcome.state = (*trainer)->SerializeState().value();
  return outcome;
}

Outcome TrainConfigured(const std::vector<Setting>& settings) {
  const config::v1::Config config = Parse(settings);
  SingleRank alone(/*generation=*/1);
  return Train(config.sampling().num_steps(), [&] { return CreatePolicyTrainer(config, &alone); });
}

Outcome TrainDirect(const std::vector<Setting>& settings) {
  Direct direct = BaseDirect();
  for (const Setting& setting : settings) setting.set(direct);
  return Train(direct.options.step.objective.num_steps,
               [&] { return CreateDdpoTrainer(direct.options, LoadTinyPipeline(direct.network)); });
}

TEST(PolicyTrainerFactoryTest, WithoutMoreTakesTheDefaults) {
  EXPECT_EQ(TrainConfigured({}), TrainDirect({}));
}

class OptionTest : public ::testing::TestWithParam<Row> {};
INSTANTIATE_TEST_SUITE_P(PolicyTrainerFactory, OptionTest, ::testing::ValuesIn(Rows()),
                         [](const auto& instance) {
                           std::string name = instance.param.option.yaml;
                           for (char& c : name) c = absl::ascii_isalnum(c) ? c : '_';
                           return name;
                         });

TEST_P(OptionTest, ReachesTheTrainer) {
  const Row& row = GetParam();
  std::vector<Setting> settings = row.context;
  settings.push_back(row.option);
  const Outcome configured = TrainConfigured(settings);
  EXPECT_EQ(configured, TrainDirect(settings));
  EXPECT_FALSE(configured == TrainConfigured(row.context)) << "the option changes nothing";
}

// A field that is new to the configuration is to get its row, or a reason why it has none.
TEST(PolicyTrainerFactoryTest, NoOptionOfTheTrainersIsLeftOut) {
  std::set<std::string> missing;
  const auto add = [&](const std::string& section, const google::protobuf::Descriptor* fields) {
    for (int i = 0; i < fields->field_count(); ++i) {
      missing.insert(absl::StrCat(section, ".", fields->field(i)->name()));
    }
  };
  add("training", config::v1::TrainingConfig::descriptor());
  add("sampling", config::v1::SamplingConfig::descriptor());
  for (const Row& row : Rows()) {
    const std::string yaml = row.option.yaml;
    missing.erase(yaml.substr(0, yaml.find('=')));
  }
  // In tests of their own below.
  missing.erase("training.device");
  missing.erase("training.parallel_backwards");
  // Others': of the actors and the coordinator …
  for (const char* name :
       {"sampling.batch_size", "sampling.samples_per_epoch", "sampling.merge_lora",
        "sampling.dtype", "sampling.device", "training.max_staleness"}) {
    missing.erase(name);
  }
  // … and of the sample weighting (sample_weighting_factory_test.cc).
  for (const char* name :
       {"training.stat_buffer_size", "training.stat_min_count", "training.rwr"}) {
    missing.erase(name);
  }
  EXPECT_THAT(missing, IsEmpty());
}

TEST(PolicyTrainerFactoryTest, EachObjectiveHasItsOwnNumberOfInnerEpochs) {
  const std::vector<TrainingSample> samples = StaleSamples(4);
  const auto passes = [&](const std::string& objective) {
    SingleRank alone(/*generation=*/1);
    const auto config = ParseConfig(
        BaseYaml(), "test",
        {"training.inner_epochs=0", "training.minibatch_size=8", "training.objective=" + objective,
         // Many steps along the same way: they are to stay small.
         "training.learning_rate=1e-5"});
    const auto trainer = CreatePolicyTrainer(config.value(), &alone);
    return (*trainer)->TrainEpoch(samples, std::vector<double>(8, 1.0), 1)->optimizer_steps;
  };
  EXPECT_EQ(passes("ddpo_is"), 1);
  EXPECT_EQ(passes("ddpo_sf"), 1);
  EXPECT_EQ(passes("rwr"), 5);
  EXPECT_EQ(passes("rwr_sparse"), 50);
}

// Where as many threads as are expected wait for each other, the first time that each computes a
// convolution.
class Meeting {
 public:
  explicit Meeting(int expected) : expected_(expected) {
    current_ = this;
    handle_ = at::addGlobalCallback(at::RecordFunctionCallback(
        [](const at::RecordFunction& function) -> std::unique_ptr<at::ObserverContext> {
          if (std::strcmp(function.name(), "aten::convolution") == 0) current_->Come();
          return nullptr;
        }));
  }
  ~Meeting() { at::removeCallback(handle_); }

  bool all_came() {
    absl::MutexLock lock(&mutex_);
    return AllCame();
  }

 private:
  void Come() {
    absl::MutexLock lock(&mutex_);
    if (!came_.insert(std::this_thread::get_id()).second) return;
    // Long for a slow machine; where a thread is missing the test fails.
    mutex_.AwaitWithTimeout(absl::Condition(this, &Meeting::AllCame), absl::Minutes(1));
  }
  bool AllCame() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return came_.size() == static_cast<size_t>(expected_);
  }

  static Meeting* current_;
  const int expected_;
  at::CallbackHandle handle_;
  absl::Mutex mutex_;
  std::set<std::thread::id> came_ ABSL_GUARDED_BY(mutex_);
};
Meeting* Meeting::current_ = nullptr;

TEST(PolicyTrainerFactoryTest, ParallelBackwardsRunSideBySide) {
  SingleRank alone(/*generation=*/1);
  const std::vector<TrainingSample> samples = StaleSamples(4);
  const auto config = ParseConfig(BaseYaml(), "test", {"training.parallel_backwards=3"});
  const auto trainer = CreatePolicyTrainer(config.value(), &alone);
  Meeting meeting(3);
  EXPECT_TRUE((*trainer)->TrainEpoch(samples, Advantages(), /*epoch=*/1).ok());
  EXPECT_TRUE(meeting.all_came());
}

// Rank 1 of two, whose other rank has gradients of zero.
class RankWithAnIdleOther : public Collective {
 public:
  int rank() const override { return 1; }
  int size() const override { return 2; }
  uint64_t generation() const override { return 1; }
  absl::Status Leave() override { return absl::OkStatus(); }
  void Abort(const std::string&) override {}
  int sums() const { return sums_; }

 protected:
  absl::Status DoAllReduceSum(const FlatBuffer&) override {
    ++sums_;
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<std::string>> DoAllGather(const std::string& mine) override {
    return std::vector<std::string>{"", mine};
  }

 private:
  int sums_ = 0;
};

TEST(PolicyTrainerFactoryTest, TheTrainerIsOneOfTheRanks) {
  RankWithAnIdleOther configured, direct;
  const Outcome outcome = Train(4, [&] { return CreatePolicyTrainer(Parse({}), &configured); });
  EXPECT_EQ(configured.sums(), outcome.optimizer_steps);
  DdpoTrainerOptions options = BaseDirect().options;
  options.rank = 1;
  options.rank_mean = RankMean(&direct);
  EXPECT_EQ(outcome, Train(4, [&] { return CreateDdpoTrainer(options, LoadTinyPipeline()); }));
  EXPECT_FALSE(outcome == TrainConfigured({}));
  // Both do something: the other rank's shuffles, and the mean.
  options.rank = 0;
  EXPECT_FALSE(outcome == Train(4, [&] { return CreateDdpoTrainer(options, LoadTinyPipeline()); }));
}

TEST(PolicyTrainerFactoryTest, LibTorchGetsTheConfiguredThreads) {
  SingleRank alone(/*generation=*/1);
  const int before = at::get_num_threads();
  config::v1::Config config = Parse({});
  for (const int threads : {3, 1}) {
    config.mutable_cluster()->set_threads_per_process(threads);
    ASSERT_TRUE(CreatePolicyTrainer(config, &alone).ok());
    EXPECT_EQ(at::get_num_threads(), threads);
  }
  at::set_num_threads(before);
}

TEST(PolicyTrainerFactoryTest, TakesTheConfiguredDevice) {
  SingleRank alone(/*generation=*/1);
  const config::v1::Config config = Parse({{"training.device=cuda", nullptr}});
  const auto network = ParseNetworkOptions("float32", "cuda");
  if (!network.ok()) {
    EXPECT_EQ(CreatePolicyTrainer(config, &alone).status(), network.status());
    return;
  }
  if (!HasGpus(1)) GTEST_SKIP();
  // Other kernels round otherwise.
  EXPECT_TRUE(Train(4, [&] { return CreatePolicyTrainer(config, &alone); }).state !=
              TrainConfigured({}).state);
}

TEST(PolicyTrainerFactoryTest, NamesAModelThatIsNotThere) {
  SingleRank alone(/*generation=*/1);
  const absl::Status status =
      CreatePolicyTrainer(Parse({{"model=no/such/model", nullptr}}), &alone).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no/such/model"));
}

}  // namespace
}  // namespace ddpo
