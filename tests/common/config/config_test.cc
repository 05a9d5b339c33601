#include "common/config/config.h"

#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "common/base/random.h"
#include "common/config/prompts.h"
#include "common/config/same_run.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/paths.h"

namespace ddpo {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr char kSmallest[] = "model: somewhere\nprompts: {set: animals}\n";

std::string ErrorOf(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  auto config = ParseConfig(yaml, "run.yaml", overrides);
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(config.status().message());
}

TEST(ConfigTest, TakesDefaultsForAbsentKeys) {
  auto config = ParseConfig(kSmallest, "run.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->reward(), "jpeg_compressibility");
  EXPECT_EQ(config->run().epochs(), 100);
  EXPECT_EQ(config->sampling().num_steps(), 50);
  EXPECT_DOUBLE_EQ(config->training().learning_rate(), 3e-4);
  EXPECT_DOUBLE_EQ(config->training().clip_range(), 1e-4);
  EXPECT_FALSE(config->sampling().merge_lora());
}

TEST(ConfigTest, ReadsEveryTypeOfValue) {
  auto config = ParseConfig(R"(
model: m
prompts: {list: [a cat, an ant]}
run: {name: x, epochs: 7, seed: 18446744073709551615}
sampling: {merge_lora: true, guidance_scale: 7.5, dtype: bfloat16}
)",
                            "run.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->prompts().list(), ElementsAre("a cat", "an ant"));
  EXPECT_EQ(config->run().epochs(), 7);
  EXPECT_EQ(config->run().seed(), 18446744073709551615u);
  EXPECT_TRUE(config->sampling().merge_lora());
  EXPECT_EQ(config->sampling().guidance_scale(), 7.5);
  EXPECT_EQ(config->sampling().dtype(), "bfloat16");
}

TEST(ConfigTest, NamesAnUnknownKeyWithItsPathLineAndTheLikelyOne) {
  EXPECT_THAT(ErrorOf(std::string(kSmallest) + "training:\n  learning_rat: 1e-3\n"),
              HasSubstr("run.yaml:4: training.learning_rat: unknown key (did you mean "
                        "learning_rate?)"));
  EXPECT_THAT(ErrorOf(std::string(kSmallest) + "something_else_entirely: 1\n"),
              HasSubstr("something_else_entirely: unknown key; known are model, reward"));
}

TEST(ConfigTest, NamesAWrongType) {
  EXPECT_THAT(ErrorOf(std::string(kSmallest) + "run: {epochs: many}\n"),
              HasSubstr("run.epochs: `many` is not an integer"));
  EXPECT_THAT(ErrorOf(std::string(kSmallest) + "run: {epochs: 1.5}\n"),
              HasSubstr("run.epochs: `1.5` is not an integer"));
  EXPECT_THAT(ErrorOf(std::string(kSmallest) + "run: {epochs: [1]}\n"),
              HasSubstr("run.epochs: expected a single value"));
  EXPECT_THAT(ErrorOf(std::string(kSmallest) + "run: 3\n"), HasSubstr("run: expected a mapping"));
  EXPECT_THAT(ErrorOf(std::string(kSmallest) + "sampling: {merge_lora: maybe}\n"),
              HasSubstr("sampling.merge_lora: `maybe` is not true or false"));
  EXPECT_THAT(ErrorOf(std::string(kSmallest) + "training: {learning_rate: nan}\n"),
              HasSubstr("training.learning_rate: `nan` is not a number"));
  EXPECT_THAT(ErrorOf("model: m\nprompts: {list: a cat}\n"),
              HasSubstr("prompts.list: expected a list"));
}

TEST(ConfigTest, NamesAValueOutOfRangeWithTheRange) {
  EXPECT_THAT(ErrorOf(std::string(kSmallest) + "run: {epochs: 0}\n"),
              HasSubstr("run.epochs: 0 is out of range: expected 1 … 1000000"));
  EXPECT_THAT(ErrorOf(std::string(kSmallest) + "run: {epochs: 99999999999}\n"),
              HasSubstr("run.epochs: 99999999999 is out of range"));
  EXPECT_THAT(ErrorOf(std::string(kSmallest) + "training: {learning_rate: 0}\n"),
              HasSubstr("training.learning_rate: 0 is out of range: expected more than 0"));
  EXPECT_THAT(ErrorOf(std::string(kSmallest) + "sampling: {dtype: int8}\n"),
              HasSubstr("sampling.dtype: `int8`: expected float32 or float16 or bfloat16"));
}

TEST(ConfigTest, ReportsAllFaultsAtOnce) {
  EXPECT_THAT(ErrorOf("run: {epochs: 0, seeed: 1}\nprompts: {set: animals}\n"),
              AllOf(HasSubstr("run.epochs"), HasSubstr("run.seeed"),
                    HasSubstr("model: the key is missing")));
}

TEST(ConfigTest, RefusesAKeyThatIsThereTwice) {
  EXPECT_THAT(ErrorOf("model: a\nmodel: b\nprompts: {set: animals}\n"),
              HasSubstr("run.yaml:2: model: the key is there twice"));
}

TEST(ConfigTest, RefusesTextThatIsNotYaml) {
  EXPECT_THAT(ErrorOf("model: [\n"), HasSubstr("not YAML"));
}

TEST(ConfigTest, ChecksWhatNoSingleKeyCanSay) {
  EXPECT_THAT(ErrorOf("model: m\n"), HasSubstr("exactly one of set, file and list (found 0)"));
  EXPECT_THAT(ErrorOf("model: m\nprompts: {set: animals, list: [x]}\n"), HasSubstr("(found 2)"));
  EXPECT_THAT(
      ErrorOf(std::string(kSmallest) + "sampling: {samples_per_epoch: 64, batch_size: 24}\n"),
      HasSubstr("sampling.samples_per_epoch: 64 is not a multiple of "
                "sampling.batch_size (24)"));
  EXPECT_THAT(ErrorOf(std::string(kSmallest) + "training: {minibatch_size: 48}\n"),
              HasSubstr("not a multiple of training.minibatch_size"));
  EXPECT_THAT(ErrorOf(std::string(kSmallest) + "cluster: {learner_ranks: 3}\n"),
              HasSubstr("cluster.learner_ranks (16 × 3)"));
  EXPECT_THAT(
      ErrorOf(std::string(kSmallest) + "training: {stat_buffer_size: 8, stat_min_count: 16}\n"),
      HasSubstr("training.stat_min_count: 16 is more than training.stat_buffer_size (8)"));
}

TEST(ConfigTest, TheScoreFunctionTakesOneStepAnEpochOnFreshSamples) {
  const auto error = [](std::vector<std::string> overrides) {
    overrides.insert(overrides.end(), {"training.objective=ddpo_sf", "sampling.batch_size=8",
                                       "sampling.samples_per_epoch=64"});
    return ErrorOf(kSmallest, overrides);
  };
  EXPECT_THAT(error({"training.minibatch_size=16", "training.gradient_accumulation=2"}),
              HasSubstr("is 32, expected sampling.samples_per_epoch, 64"));
  EXPECT_THAT(error({"training.minibatch_size=64", "training.inner_epochs=2"}),
              HasSubstr("training.inner_epochs: 2"));
  EXPECT_THAT(error({"training.minibatch_size=64", "training.max_staleness=1"}),
              HasSubstr("training.max_staleness: 1"));
  EXPECT_TRUE(ParseConfig(kSmallest, "run.yaml",
                          {"training.objective=ddpo_sf", "sampling.samples_per_epoch=64",
                           "training.minibatch_size=16", "training.gradient_accumulation=4"})
                  .ok());
}

TEST(ConfigTest, RefusesOptionsThatContradictTheObjective) {
  const auto error = [](const std::vector<std::string>& overrides) {
    return ErrorOf(kSmallest, overrides);
  };
  EXPECT_THAT(error({"training.objective=rwr", "training.kl_coefficient=0.1"}),
              HasSubstr("training.kl_coefficient: rwr"));
  EXPECT_THAT(error({"training.objective=rwr_sparse", "training.timestep_fraction=0.5"}),
              HasSubstr("rwr_sparse learns from no denoising steps"));
  EXPECT_THAT(error({"training.objective=rwr", "training.decoupled=true"}),
              HasSubstr("training.decoupled: rwr has no ratio"));
  EXPECT_THAT(error({"training.full_finetuning=true", "training.dtype=bfloat16"}),
              HasSubstr("training.dtype: bfloat16"));
  EXPECT_THAT(error({"training.full_finetuning=true", "training.kl_coefficient=0.1"}),
              HasSubstr("keeps no base model"));
  EXPECT_THAT(error({"training.full_finetuning=true", "sampling.merge_lora=true"}),
              HasSubstr("sampling.merge_lora"));
}

TEST(ConfigTest, RefusesPlainTextBeyondLoopback) {
  for (const char* host : {"0.0.0.0", "10.0.0.1", "127.example.com", "::1", "''"}) {
    EXPECT_THAT(ErrorOf(std::string(kSmallest) + "cluster: {listen_host: '" + host + "'}\n"),
                HasSubstr("cluster.listen_host: "))
        << host;
  }
  for (const char* host : {"127.0.0.2", "localhost", "[::1]"}) {
    EXPECT_TRUE(
        ParseConfig(std::string(kSmallest) + "cluster: {listen_host: '" + host + "'}\n", "a").ok())
        << host;
  }
}

TEST(ConfigTest, AcceptsBothEndsOfARangeThatIncludesThem) {
  EXPECT_TRUE(ParseConfig(kSmallest, "a", {"sampling.guidance_scale=0"}).ok());
  EXPECT_TRUE(ParseConfig(kSmallest, "a", {"sampling.guidance_scale=100"}).ok());
  EXPECT_THAT(ErrorOf(kSmallest, {"sampling.guidance_scale=100.5"}),
              HasSubstr("sampling.guidance_scale: 100.5 is out of range: expected 0 … 100"));
  EXPECT_THAT(ErrorOf(kSmallest, {"run.seed=-1"}), HasSubstr("run.seed: `-1` is not an integer"));
  EXPECT_THAT(ErrorOf(kSmallest, {"run.seed=18446744073709551616"}), HasSubstr("run.seed: "));
  EXPECT_THAT(ErrorOf(kSmallest, {"training.learning_rate=inf"}),
              HasSubstr("training.learning_rate: `inf` is not a number"));
}

TEST(ConfigTest, RefusesTextThatIsNoMapping) {
  EXPECT_THAT(ErrorOf("- model\n"), HasSubstr("expected a mapping"));
  EXPECT_THAT(ErrorOf("just words\n"), HasSubstr("expected a mapping"));
  EXPECT_THAT(ErrorOf(""), HasSubstr("model: the key is missing"));
  EXPECT_THAT(ErrorOf("model:\nprompts: {set: animals}\n"), HasSubstr("model: "));
  EXPECT_THAT(ErrorOf(std::string(kSmallest) + "[a, b]: 3\n"), HasSubstr("run.yaml"));
}

TEST(ConfigTest, OverridesWinOverTheText) {
  auto config = ParseConfig(std::string(kSmallest) + "run: {epochs: 5}\n", "run.yaml",
                            {"run.epochs=9", "training.learning_rate=1e-3", "model=other"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->run().epochs(), 9);
  EXPECT_DOUBLE_EQ(config->training().learning_rate(), 1e-3);
  EXPECT_EQ(config->model(), "other");
}

TEST(ConfigTest, NamesABadOverride) {
  EXPECT_THAT(ErrorOf(kSmallest, {"run.epochs"}),
              HasSubstr("--set run.epochs: expected KEY=VALUE"));
  EXPECT_THAT(ErrorOf(kSmallest, {"run.epoch=3"}),
              HasSubstr("run.epoch: unknown key (did you mean epochs?)"));
  EXPECT_THAT(ErrorOf(kSmallest, {"model.x=3"}), HasSubstr("model: has no keys below it"));
  EXPECT_THAT(ErrorOf(kSmallest, {"run.epochs=-1"}), HasSubstr("run.epochs: -1 is out of range"));
}

TEST(ConfigTest, WritesWhatItReadsBackAsTheSame) {
  auto config = ParseConfig(
      "model: m\nprompts: {list: ['a \"cat\"', 'null', '5']}\n"
      "training: {learning_rate: 0.1, clip_range: 1.2345678901234567e-4}\n",
      "run.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  auto again = ParseConfig(ConfigToYaml(*config), "resolved.yaml");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(config->SerializeAsString(), again->SerializeAsString());
  EXPECT_EQ(ConfigDigest(*config), ConfigDigest(*again));
}

TEST(ConfigTest, WritesEveryTextSoThatItReadsBack) {
  auto config = ParseConfig("model: m\nprompts: {list: [x]}\n", "run.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  config->set_model("C: \\with # and ' and \"");
  config->mutable_prompts()->clear_list();
  for (const char* prompt :
       {"~",   "null",       "true",  "yes",       "1e5", "0x10", "a: b", "- a", "# a",
        " a ", "two\nlines", "tab\t", "ein Bär 🐻", "{a}", "[a]",  "*a",   "&a",  "!a",
        "%a",  "@a",         "`a`",   "?",         "---", "|",    ">"}) {
    config->mutable_prompts()->add_list(prompt);
  }
  auto again = ParseConfig(ConfigToYaml(*config), "resolved.yaml");
  ASSERT_TRUE(again.ok()) << again.status() << ConfigToYaml(*config);
  EXPECT_EQ(config->DebugString(), again->DebugString());
}

TEST(ConfigTest, WritesEveryKeyThatHasAValue) {
  const std::string yaml = ConfigToYaml(*ParseConfig(kSmallest, "run.yaml"));
  for (const char* line :
       {"model: somewhere", "  set: animals", "  seed: 42", "  eta: 1", "  learning_rate: 0.0003",
        "  merge_lora: false", "  keep: 3", "  pairs: 90", "  max_batch_size: 64"}) {
    EXPECT_THAT(yaml, HasSubstr(std::string(line) + "\n"));
  }
}

TEST(ConfigTest, AnswersDamagedTextWithAStatus) {
  const std::string good =
      "model: &m m\nprompts: {list: [a cat, \"an ant\"]}\nrun: {name: *m, epochs: 7}\n"
      "sampling:\n  merge_lora: true\n  eta: 0.5\n? x\n: |\n  text\n";
  constexpr char kMarks[] = "{}[]:,-?*&!|>'\"#%@`~ \n\t\x80\xff\x00 0e<a";
  for (uint64_t round = 0; round < 5000; ++round) {
    std::string text = good;
    for (uint64_t edit = 0; edit <= round % 6; ++edit) {
      const uint64_t random = DeriveSeed(1, "damage", round, edit);
      const size_t at = random % text.size();
      const char mark = kMarks[(random >> 20) % (sizeof(kMarks) - 1)];
      switch ((random >> 40) % 3) {
        case 0:
          text[at] = mark;
          break;
        case 1:
          text.insert(at, 1, mark);
          break;
        default:
          text.erase(at, 1 + (random >> 50) % 8);
      }
    }
    EXPECT_NO_THROW(ParseConfig(text, "run.yaml").status().IgnoreError()) << text;
  }
}

TEST(ConfigTest, NamesTheKeysInWhichTwoDiffer) {
  auto before = ParseConfig(kSmallest, "a");
  auto after = ParseConfig(kSmallest, "b", {"sampling.num_steps=20", "prompts.set=counting"});
  ASSERT_TRUE(before.ok() && after.ok());
  EXPECT_THAT(ConfigDifferences(*before, *after),
              ElementsAre("prompts.set: animals → counting", "sampling.num_steps: 50 → 20"));
  EXPECT_NE(ConfigDigest(*before), ConfigDigest(*after));
}

TEST(ConfigTest, DigestSaysNothingOfCertificatesAndTokens) {
  const auto before = ParseConfig(kSmallest, "run.yaml");
  const auto after = ParseConfig(kSmallest, "run.yaml", {"security.tls.certificate=other.crt"});
  ASSERT_TRUE(before.ok() && after.ok()) << after.status();
  EXPECT_THAT(ConfigToYaml(*after), HasSubstr("certificate: other.crt"));
  EXPECT_EQ(ConfigDigest(*before), ConfigDigest(*after));
}

TEST(ConfigTest, LoadsEveryPreset) {
  int presets = 0;
  for (const auto& file :
       std::filesystem::directory_iterator(testing::SourcePath("assets/configs"))) {
    const std::string preset = file.path().stem().string();
    auto config = LoadConfig(preset);
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->run().name(), preset);
    EXPECT_TRUE(LoadPrompts(config->prompts()).ok()) << preset;
    ++presets;
  }
  EXPECT_GE(presets, 9);
  EXPECT_EQ(LoadConfig("no_such_preset").status().code(), absl::StatusCode::kNotFound);
}

TEST(PromptsTest, HasTheNamedSets) {
  config::v1::PromptsConfig config;
  config.set_set("animals");
  auto animals = LoadPrompts(config);
  ASSERT_TRUE(animals.ok()) << animals.status();
  EXPECT_THAT(*animals, AllOf(SizeIs(45), Contains("a cat"), Contains("an ant")));
  config.set_set("animals_activities");
  EXPECT_THAT(*LoadPrompts(config), AllOf(SizeIs(135), Contains("a bear playing chess")));
  config.set_set("counting");
  EXPECT_THAT(*LoadPrompts(config), AllOf(SizeIs(315), Contains("eight wolves"),
                                          Contains("two mice"), Contains("three sheep")));
}

// SPEC.md: the 45 words in their order, each with its article.
TEST(PromptsTest, AnimalsAreThoseOfThePaper) {
  config::v1::PromptsConfig config;
  config.set_set("animals");
  std::vector<std::string> expected;
  for (const std::string animal :
       {"cat",     "dog",     "horse",    "monkey",   "rabbit",  "zebra",     "spider", "bird",
        "sheep",   "deer",    "cow",      "goat",     "lion",    "tiger",     "bear",   "raccoon",
        "fox",     "wolf",    "lizard",   "beetle",   "ant",     "butterfly", "fish",   "shark",
        "whale",   "dolphin", "squirrel", "mouse",    "rat",     "snake",     "turtle", "frog",
        "chicken", "duck",    "goose",    "bee",      "pig",     "turkey",    "fly",    "llama",
        "camel",   "bat",     "gorilla",  "hedgehog", "kangaroo"}) {
    expected.push_back((animal == "ant" ? "an " : "a ") + animal);
  }
  EXPECT_EQ(*LoadPrompts(config), expected);
  std::vector<std::string> with_activities;
  for (const std::string& animal : expected) {
    for (const char* activity : {"washing the dishes", "riding a bike", "playing chess"}) {
      with_activities.push_back(animal + " " + activity);
    }
  }
  config.set_set("animals_activities");
  EXPECT_EQ(*LoadPrompts(config), with_activities);
}

TEST(PromptsTest, CountsUseTheRightPlurals) {
  config::v1::PromptsConfig config;
  config.set_set("counting");
  const auto prompts = *LoadPrompts(config);
  for (const char* prompt :
       {"two mice", "three geese", "four wolves", "five sheep", "six deer", "seven fish",
        "eight butterflies", "two flies", "three foxes", "four monkeys"}) {
    EXPECT_THAT(prompts, Contains(prompt));
  }
}

TEST(PromptsTest, HasImageNetsAnimals) {
  config::v1::PromptsConfig config;
  config.set_set("imagenet_animals");
  const auto prompts = *LoadPrompts(config);
  EXPECT_THAT(prompts, SizeIs(398));
  EXPECT_EQ(prompts.front(), "a tench");
  EXPECT_EQ(prompts.back(), "a puffer");
}

TEST(PromptsTest, HoldsNoPromptTwiceAndHoldsOutWhatItSays) {
  std::set<std::string> seen;
  for (const char* name : {"animals", "animals_activities", "counting", "held_out_animals",
                           "held_out_objects", "held_out_animals_activities",
                           "animals_held_out_activities", "held_out_animals_held_out_activities"}) {
    config::v1::PromptsConfig config;
    config.set_set(name);
    const auto prompts = LoadPrompts(config);
    ASSERT_TRUE(prompts.ok()) << prompts.status();
    for (const std::string& prompt : *prompts) {
      EXPECT_TRUE(seen.insert(prompt).second) << name << ": " << prompt;
    }
  }
}

TEST(PromptsTest, TheDemosSetsArePartsOfTheirTasks) {
  for (const auto& [part, whole] : {std::pair{"demo_alignment", "animals_activities"},
                                    std::pair{"demo_counting", "counting"}}) {
    config::v1::PromptsConfig config;
    config.set_set(part);
    const auto prompts = *LoadPrompts(config);
    EXPECT_THAT(prompts, SizeIs(36));
    config.set_set(whole);
    EXPECT_THAT(*LoadPrompts(config), ::testing::IsSupersetOf(prompts));
  }
}

TEST(PromptsTest, NamesWhatIsNotThere) {
  config::v1::PromptsConfig config;
  config.set_set("plants");
  EXPECT_THAT(std::string(LoadPrompts(config).status().message()),
              HasSubstr("no set `plants`; known are animals"));
  config.clear_set();
  config.set_file("/no/such/file.txt");
  EXPECT_THAT(std::string(LoadPrompts(config).status().message()), HasSubstr("/no/such/file.txt"));
}

TEST(PromptsTest, SkipsBlankLinesAndCommentsOfAFile) {
  const std::string path = ::testing::TempDir() + "/prompts.txt";
  std::ofstream(path) << "# heading\n\n  a cat  \na dog\n";
  config::v1::PromptsConfig config;
  config.set_file(path);
  auto prompts = LoadPrompts(config);
  ASSERT_TRUE(prompts.ok()) << prompts.status();
  EXPECT_THAT(*prompts, ElementsAre("a cat", "a dog"));
}

// ---- going on with a run

config::v1::Config RunWith(const std::vector<std::string>& overrides) {
  auto config = ParseConfig(
      "model: m\nprompts: {list: [a cat]}\n"
      "sampling: {samples_per_epoch: 64, batch_size: 4}\ntraining: {minibatch_size: 4}\n",
      "test", overrides);
  EXPECT_TRUE(config.ok()) << config.status();
  return *config;
}

TEST(SameRunTest, ARunMayGoOnWithOtherProcessesButNotWithOtherNumbers) {
  const config::v1::Config before = RunWith({});
  EXPECT_TRUE(
      CheckSameRun(before, RunWith({"run.epochs=7", "cluster.actors=9", "cluster.learner_ranks=2"}))
          .ok());
  EXPECT_TRUE(
      CheckSameRun(before, RunWith({"cluster.lease_seconds=60", "cluster.rank_timeout_seconds=60",
                                    "cluster.actor_stall_seconds=60"}))
          .ok());
  const absl::Status other =
      CheckSameRun(before, RunWith({"training.learning_rate=0.5", "training.minibatch_size=8"}));
  EXPECT_EQ(other.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(other.message()), HasSubstr("training.learning_rate: 0.0003 → 0.5"));
  EXPECT_THAT(std::string(other.message()), HasSubstr("training.minibatch_size: 4 → 8"));
}

TEST(SameRunTest, SaysWhatAnotherNumberOfRanksChanges) {
  const config::v1::Config before = RunWith({});
  EXPECT_EQ(DescribeRankChange(before, RunWith({"run.epochs=7"})), "");
  EXPECT_EQ(DescribeRankChange(before, RunWith({"cluster.learner_ranks=2"})),
            "cluster.learner_ranks: 1 → 2: an optimizer step takes 8 samples (minibatch_size × "
            "gradient_accumulation × learner_ranks), before it took 4, and a pass over an epoch's "
            "samples 8 optimizer steps, before it took 16; so the weights will not be those of a "
            "run that kept its ranks");
  const config::v1::Config after =
      RunWith({"cluster.learner_ranks=2", "training.minibatch_size=2"});
  EXPECT_TRUE(CheckSameRun(before, after).ok());
  EXPECT_THAT(DescribeRankChange(before, after),
              HasSubstr("takes 4 samples as before, but other ones"));
}

TEST(SameRunTest, EveryRankHasToGetAsManyTasks) {
  const auto config = ParseConfig(
      "model: m\nprompts: {list: [a cat]}\ncluster: {learner_ranks: 4}\n"
      "sampling: {samples_per_epoch: 64, batch_size: 32}\ntraining: {minibatch_size: 4}\n",
      "test");
  EXPECT_THAT(std::string(config.status().message()),
              HasSubstr("sampling.samples_per_epoch: 64 is not a multiple of sampling.batch_size × "
                        "cluster.learner_ranks (32 × 4): every rank gets as many tasks"));
}

}  // namespace
}  // namespace ddpo
