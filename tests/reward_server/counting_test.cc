#include "reward_server/scorers/counting.h"

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "common/base/files.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/reward_server/table_judge.h"
#include "tests/testing/paths.h"

namespace ddpo {
namespace {

using ::ddpo::testing::TableJudge;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

constexpr int kMaxNewTokens = 16;

ScoringInput Prompt(const std::string& prompt) {
  ScoringInput input;
  input.image = Image{1, 1, {0, 0, 0}};
  input.prompt = prompt;
  return input;
}

absl::StatusOr<ScoreValue> ScoreOne(std::shared_ptr<TableJudge> judge, const std::string& prompt) {
  return MakeCountingScorer(std::move(judge), kMaxNewTokens)->ScoreBatch({Prompt(prompt)})[0];
}

TEST(CountingPromptTest, ReadsNumbersAndIrregularPlurals) {
  const auto wolves = ParseCountingPrompt("eight wolves");
  ASSERT_TRUE(wolves.ok()) << wolves.status();
  EXPECT_EQ(wolves->count, 8);
  EXPECT_EQ(wolves->plural, "wolves");
  EXPECT_EQ(wolves->singular, "wolf");
  EXPECT_EQ(ParseCountingPrompt("two mice")->singular, "mouse");
  EXPECT_EQ(ParseCountingPrompt("three sheep")->singular, "sheep");
  EXPECT_EQ(ParseCountingPrompt("4 cats")->count_word, "four");
}

// The lines of a prompt list that are prompts.
std::vector<std::string> PromptsIn(const std::string& list) {
  std::vector<std::string> prompts;
  const std::string text = ReadFile(testing::SourcePath("assets/prompts/" + list)).value();
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    if (line[0] != '#') prompts.emplace_back(line);
  }
  return prompts;
}

TEST(CountingPromptTest, KnowsTheSingularOfEveryAnimalThatIsCounted) {
  std::set<std::string> animals;
  for (const std::string& prompt : PromptsIn("animals.txt")) {
    animals.insert(prompt.substr(prompt.find(' ') + 1));
  }
  const std::vector<std::string> prompts = PromptsIn("counting.txt");
  EXPECT_EQ(prompts.size(), 7 * animals.size());
  for (const std::string& prompt : prompts) {
    const auto parsed = ParseCountingPrompt(prompt);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_TRUE(animals.contains(parsed->singular)) << prompt << ": " << parsed->singular;
  }
}

TEST(CountingPromptTest, RefusesPromptsWithoutANumber) {
  EXPECT_THAT(std::string(ParseCountingPrompt("a cat").status().message()),
              HasSubstr("prompt `a cat` asks for no number of animals"));
  EXPECT_FALSE(ParseCountingPrompt("").ok());
  EXPECT_FALSE(ParseCountingPrompt("two cats playing chess").ok());
}

TEST(CountingScorerTest, AsksBothQuestionsAndAveragesTheAnswers) {
  auto judge = std::make_shared<TableJudge>();
  judge->replies = {{"How many cats are there in this image?", "There are two cats."},
                    {"What animal is in this image?", "A dog"}};
  const auto value = ScoreOne(judge, "two cats");
  ASSERT_TRUE(value.ok()) << value.status();
  EXPECT_EQ(value->value, 0.5);
  EXPECT_THAT(value->details,
              UnorderedElementsAre(Pair("count_correct", 1), Pair("animal_correct", 0)));
  EXPECT_THAT(value->text, HasSubstr("There are two cats."));
  EXPECT_THAT(judge->asked, ElementsAre("How many cats are there in this image?",
                                        "What animal is in this image?"));
  EXPECT_THAT(judge->max_new_tokens, Each(kMaxNewTokens));
}

TEST(CountingScorerTest, TakesDigitsAndWholeWordsOnly) {
  auto judge = std::make_shared<TableJudge>();
  judge->replies = {{"How many ants are there in this image?", "2"},
                    {"What animal is in this image?", "Giants and elephants"}};
  EXPECT_EQ(ScoreOne(judge, "two ants")->value, 0.5);
  judge->replies["How many ants are there in this image?"] = "twenty-one or 12";
  EXPECT_EQ(ScoreOne(judge, "two ants")->value, 0);
}

TEST(CountingScorerTest, AFailedAnswerIsAStatusAndNotZero) {
  auto judge = std::make_shared<TableJudge>();
  judge->replies = {{"How many cats are there in this image?", "two"}};
  EXPECT_EQ(ScoreOne(judge, "two cats").status().code(), absl::StatusCode::kUnavailable);
}

TEST(CountingScorerTest, ABadPromptDoesNotDisturbItsNeighbours) {
  auto judge = std::make_shared<TableJudge>();
  judge->replies = {{"How many cats are there in this image?", "two"},
                    {"What animal is in this image?", "cats"}};
  const auto values =
      MakeCountingScorer(judge, kMaxNewTokens)->ScoreBatch({Prompt("a cat"), Prompt("two cats")});
  EXPECT_EQ(values[0].status().code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(values[1].ok()) << values[1].status();
  EXPECT_EQ(values[1]->value, 1);
}

}  // namespace
}  // namespace ddpo
