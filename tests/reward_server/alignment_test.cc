#include "reward_server/scorers/alignment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "common/config/config.h"
#include "common/nn/llava.h"
#include "reward_server/scorers/builtin.h"
#include "tests/reward_server/table_judge.h"
#include "tests/testing/paths.h"

namespace ddpo {
namespace {

using ::ddpo::testing::SourcePath;
using ::ddpo::testing::TableJudge;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

constexpr char kQuestion[] = "Answer concisely: what is going on in this image?";
constexpr char kEmojiBert[] = "assets/models/emoji-bert";

std::shared_ptr<const BertScorer> EmojiBert() {
  static const std::shared_ptr<const BertScorer> scorer = [] {
    BertScorerOptions options;
    options.encoder_dir = SourcePath(kEmojiBert);
    options.layer = 2;
    return BertScorer::Load(options).value();
  }();
  return scorer;
}

ScoringInput Prompt(const std::string& prompt) {
  ScoringInput input;
  input.image = Image{1, 1, {0, 0, 0}};
  input.prompt = prompt;
  return input;
}

std::unique_ptr<Scorer> Make(std::shared_ptr<TableJudge> judge,
                             const AlignmentOptions& options = {}) {
  return MakeAlignmentScorer(std::move(judge), EmojiBert(), options).value();
}

std::shared_ptr<TableJudge> Saying(const std::string& reply) {
  auto judge = std::make_shared<TableJudge>();
  judge->replies[kQuestion] = reply;
  return judge;
}

TEST(AlignmentScorerTest, TheRewardIsTheRecallOfTheReplyAgainstThePrompt) {
  const auto judge = Saying("a bear playing chess");
  const auto scorer = Make(judge);
  EXPECT_TRUE(scorer->info().needs_prompt);
  const auto values = scorer->ScoreBatch({Prompt("a bear playing chess")});
  ASSERT_TRUE(values[0].ok()) << values[0].status();
  const BertScore expected =
      EmojiBert()
          ->Score({"a bear playing chess"}, {"The image contains a bear playing chess"})
          .value()[0];
  EXPECT_EQ(values[0]->value, expected.recall);
  EXPECT_THAT(
      values[0]->details,
      UnorderedElementsAre(std::pair<const std::string, double>("recall", expected.recall),
                           std::pair<const std::string, double>("precision", expected.precision),
                           std::pair<const std::string, double>("f1", expected.f1)));
  EXPECT_EQ(values[0]->text, "a bear playing chess");
  EXPECT_THAT(judge->asked, Each(std::string(kQuestion)));
  EXPECT_THAT(judge->max_new_tokens, Each(64));
}

TEST(AlignmentScorerTest, ARightReplyScoresMoreThanAWrongOne) {
  const auto scorer = Make(Saying("a bear playing chess"));
  const auto values =
      scorer->ScoreBatch({Prompt("a bear playing chess"), Prompt("a bear riding a bike"),
                          Prompt("a cat riding a bike")});
  EXPECT_GT(values[0]->value, values[1]->value);
  EXPECT_GT(values[1]->value, values[2]->value);
}

TEST(AlignmentScorerTest, TakesPrecisionOrF1AndItsOwnQuestionAndReference) {
  AlignmentOptions options{
      .question = "What is it?", .max_new_tokens = 7, .reference = "{prompt}!"};
  auto judge = std::make_shared<TableJudge>();
  judge->replies["What is it?"] = "a wolf";
  const BertScore expected = EmojiBert()->Score({"a wolf"}, {"two wolves!"}).value()[0];
  options.value = "precision";
  EXPECT_EQ(Make(judge, options)->ScoreBatch({Prompt("two wolves")})[0]->value, expected.precision);
  options.value = "f1";
  EXPECT_EQ(Make(judge, options)->ScoreBatch({Prompt("two wolves")})[0]->value, expected.f1);
  EXPECT_THAT(judge->max_new_tokens, Each(7));
}

TEST(AlignmentScorerTest, AFailedJudgeIsAStatusAndNotZero) {
  const auto values = Make(std::make_shared<TableJudge>())->ScoreBatch({Prompt("a cat")});
  EXPECT_EQ(values[0].status(), absl::UnavailableError("the model is loading"));
}

TEST(AlignmentScorerTest, AnEmptyReplyScoresZeroAsInBertScore) {
  const auto values = Make(Saying(""))->ScoreBatch({Prompt("a cat")});
  ASSERT_TRUE(values[0].ok()) << values[0].status();
  EXPECT_EQ(values[0]->value, 0);
}

TEST(AlignmentScorerTest, AReplyThatHasNoScoreDoesNotDisturbItsNeighbours) {
  // bert-score gives NaN where all of a sentence's tokens are cls and sep.
  const auto scorer = Make(Saying("a cat"), {.reference = "{prompt}"});
  const auto values = scorer->ScoreBatch({Prompt("[SEP]"), Prompt("a cat")});
  EXPECT_EQ(values[0].status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(values[1].ok()) << values[1].status();
}

TEST(AlignmentScorerTest, AnImagesScoreDoesNotDependOnTheOthersInItsBatch) {
  const auto scorer = Make(Saying("a zebra"));
  const auto together = scorer->ScoreBatch(
      {Prompt("a cat"),
       Prompt("eight hedgehogs that wash the dishes, ride a bike and play chess")});
  EXPECT_EQ(together[0]->value, scorer->ScoreBatch({Prompt("a cat")})[0]->value);
}

TEST(AlignmentScorerTest, RefusesAnUnknownValueAndAReferenceWithoutThePrompt) {
  const auto refusal = [](const AlignmentOptions& options) {
    return std::string(MakeAlignmentScorer(std::make_shared<TableJudge>(), EmojiBert(), options)
                           .status()
                           .message());
  };
  EXPECT_THAT(refusal({.value = "recal"}), AllOf(HasSubstr("recal"), HasSubstr("precision or f1")));
  EXPECT_THAT(refusal({.reference = "a picture"}),
              AllOf(HasSubstr("a picture"), HasSubstr("{prompt}")));
}

TEST(AlignmentScorerTest, HasAnotherDigestForAnotherQuestionValueAndReference) {
  const auto digest = [](const AlignmentOptions& options) {
    return Make(std::make_shared<TableJudge>(), options)->info().digest;
  };
  EXPECT_EQ(digest({}), digest({}));
  EXPECT_NE(digest({}), digest({.question = "What?"}));
  EXPECT_NE(digest({}), digest({.max_new_tokens = 63}));
  EXPECT_NE(digest({}), digest({.value = "f1"}));
  EXPECT_NE(digest({}), digest({.reference = "{prompt}"}));
}

class AlignmentConfigTest : public ::testing::Test {
 protected:
  AlignmentConfigTest() {
    config_.set_dtype("float32");
    config_.set_device("cpu");
    config_.mutable_judge()->mutable_endpoint()->set_base_url("http://127.0.0.1:1/v1");
    config_.mutable_judge()->mutable_endpoint()->set_model("any");
    config_.mutable_judge()->set_question(kQuestion);
    config_.mutable_judge()->set_max_new_tokens(16);
    config_.mutable_bert_score()->set_encoder(kEmojiBert);
    config_.mutable_bert_score()->set_layer(2);
    config_.mutable_bert_score()->set_value("recall");
    config_.mutable_bert_score()->set_reference("The image contains {prompt}");
  }

  config::v1::ScoringConfig config_;
};

TEST_F(AlignmentConfigTest, IsThereWhereAJudgeAndAnEncoderAre) {
  EXPECT_THAT(BuiltinScorers({})->Names(), Not(Contains("alignment")));
  const auto registry = BuiltinScorers(config_);
  ASSERT_TRUE(registry.ok()) << registry.status();
  const auto scorer = registry->Make("alignment");
  ASSERT_TRUE(scorer.ok()) << scorer.status();
  EXPECT_EQ((*scorer)->info().kind, "vlm_judge");
  EXPECT_EQ((*scorer)->info().max_score, 1);
  config_.mutable_bert_score()->clear_encoder();
  EXPECT_THAT(BuiltinScorers(config_)->Names(),
              AllOf(Contains("counting"), Not(Contains("alignment"))));
}

class DemoPresetTest : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Presets, DemoPresetTest,
                         ::testing::Values("compressibility", "incompressibility", "aesthetic",
                                           "alignment", "counting"),
                         [](const auto& test) { return test.param; });

TEST_P(DemoPresetTest, ScoresAnImageWithTheEmbeddedModels) {
  const auto config = LoadConfig(SourcePath("assets/configs/demo_" + GetParam() + ".yaml"));
  ASSERT_TRUE(config.ok()) << config.status();
  const auto registry = BuiltinScorers(config->scoring());
  ASSERT_TRUE(registry.ok()) << registry.status();
  const auto scorer = registry->Make(config->reward());
  ASSERT_TRUE(scorer.ok()) << scorer.status();
  ScoringInput input = Prompt("two cats");
  input.image = Image{32, 32, std::vector<uint8_t>(32 * 32 * 3, 255)};
  const auto values = (*scorer)->ScoreBatch({input});
  ASSERT_TRUE(values[0].ok()) << values[0].status();
  EXPECT_EQ(values[0]->details.at("near_constant"), 1);
}

TEST_F(AlignmentConfigTest, SaysWhichKeyAScorerNeeds) {
  const auto need = [](const config::v1::ScoringConfig& config, const std::string& name) {
    const absl::Status status = BuiltinScorers(config)->Make(name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    return std::string(status.message());
  };
  EXPECT_THAT(need({}, "aesthetic"), HasSubstr("scoring.aesthetic.clip"));
  EXPECT_THAT(need({}, "counting"), HasSubstr("scoring.judge.llava"));
  EXPECT_THAT(need({}, "alignment"),
              AllOf(HasSubstr("scoring.judge.llava"), HasSubstr("scoring.bert_score.encoder")));
  config_.mutable_bert_score()->clear_encoder();
  EXPECT_THAT(need(config_, "alignment"), HasSubstr("needs scoring.bert_score.encoder"));
}

TEST_F(AlignmentConfigTest, ScoresWithALlavaInTheProcessThatScorersShare) {
  config_.mutable_judge()->clear_endpoint();
  config_.mutable_judge()->set_llava("tests/goldens/llava/tied");
  config_.mutable_judge()->set_max_new_tokens(5);
  const auto registry = BuiltinScorers(config_);
  ASSERT_TRUE(registry.ok()) << registry.status();
  const auto alignment = registry->Make("alignment").value();
  const auto counting = registry->Make("counting").value();
  ScoringInput input = Prompt("two cats");
  input.image = Image{9, 7, std::vector<uint8_t>(9 * 7 * 3, 200)};
  const auto llava = Llava::Load(SourcePath("tests/goldens/llava/tied"), {}).value();
  // Each has a thread of its own.
  absl::StatusOr<ScoreValue> counted;
  std::thread other([&] { counted = counting->ScoreBatch({input})[0]; });
  const absl::StatusOr<ScoreValue> aligned = alignment->ScoreBatch({input})[0];
  other.join();
  ASSERT_TRUE(counted.ok()) << counted.status();
  ASSERT_TRUE(aligned.ok()) << aligned.status();
  EXPECT_EQ(aligned->text, absl::StripAsciiWhitespace(
                               llava->Answer({{&input.image, kQuestion, 5}})[0].value().text));
}

TEST_F(AlignmentConfigTest, RefusesTwoJudges) {
  config_.mutable_judge()->set_llava("some/folder");
  EXPECT_THAT(std::string(BuiltinScorers(config_).status().message()),
              AllOf(HasSubstr("judge.llava"), HasSubstr("judge.endpoint")));
}

TEST_F(AlignmentConfigTest, SaysWhichModelIsMissing) {
  config_.mutable_bert_score()->set_encoder("/nowhere/bert");
  EXPECT_THAT(std::string(BuiltinScorers(config_)->Make("alignment").status().message()),
              HasSubstr("/nowhere/bert"));
  config_.mutable_bert_score()->set_encoder(kEmojiBert);
  config_.mutable_judge()->clear_endpoint();
  config_.mutable_judge()->set_llava("/nowhere/llava");
  EXPECT_THAT(std::string(BuiltinScorers(config_)->Make("alignment").status().message()),
              HasSubstr("/nowhere/llava"));
}

}  // namespace
}  // namespace ddpo
