#include "reward_server/scorers/counting.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/sha256.h"

namespace ddpo {
namespace {

constexpr std::array<absl::string_view, 11> kCountWords = {
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"};

constexpr std::array<std::pair<absl::string_view, absl::string_view>, 10> kIrregularPlurals = {{
    {"mice", "mouse"},
    {"geese", "goose"},
    {"wolves", "wolf"},
    {"sheep", "sheep"},
    {"deer", "deer"},
    {"fish", "fish"},
    {"butterflies", "butterfly"},
    {"flies", "fly"},
    {"foxes", "fox"},
    {"ostriches", "ostrich"},
}};

std::string Singular(const std::string& plural) {
  for (const auto& [irregular, singular] : kIrregularPlurals) {
    if (plural == irregular) return std::string(singular);
  }
  return absl::EndsWith(plural, "s") ? plural.substr(0, plural.size() - 1) : plural;
}

// The words of a reply: letters and digits, lower case.
std::vector<std::string> Words(const std::string& reply) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : reply + " ") {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c))) {
      word.push_back(absl::ascii_tolower(static_cast<unsigned char>(c)));
    } else if (!word.empty()) {
      words.push_back(std::exchange(word, {}));
    }
  }
  return words;
}

bool Contains(const std::vector<std::string>& words, absl::string_view wanted) {
  for (const std::string& word : words) {
    if (word == wanted) return true;
  }
  return false;
}

class CountingScorer : public Scorer {
 public:
  CountingScorer(std::shared_ptr<ImageJudge> judge, int max_new_tokens)
      : judge_(std::move(judge)), max_new_tokens_(max_new_tokens) {
    info_.name = "counting";
    info_.kind = "counting";
    info_.description =
        "Whether a vision-language model finds the asked number of the asked animal: the mean of "
        "two yes-or-no checks of its replies";
    info_.digest = Sha256Hex(absl::StrCat("counting 2 ", max_new_tokens, " ", judge_->digest()));
    info_.min_score = 0;
    info_.max_score = 1;
    info_.needs_prompt = true;
    // Two questions an image.
    info_.max_batch_size = std::max(1, judge_->max_batch_size() / 2);
  }

  const ScorerInfo& info() const override { return info_; }

  std::vector<absl::StatusOr<ScoreValue>> ScoreBatch(
      absl::Span<const ScoringInput> inputs) override {
    std::vector<absl::StatusOr<CountingPrompt>> prompts;
    std::vector<ImageQuestion> questions;
    for (const ScoringInput& input : inputs) {
      prompts.push_back(ParseCountingPrompt(input.prompt));
      if (!prompts.back().ok()) continue;
      questions.push_back(
          {&input.image,
           absl::StrCat("How many ", prompts.back()->plural, " are there in this image?"),
           max_new_tokens_});
      questions.push_back({&input.image, "What animal is in this image?", max_new_tokens_});
    }
    const auto replies =
        questions.empty() ? std::vector<absl::StatusOr<std::string>>{} : judge_->Answer(questions);
    std::vector<absl::StatusOr<ScoreValue>> values;
    size_t next = 0;
    for (const auto& prompt : prompts) {
      if (!prompt.ok()) {
        values.push_back(prompt.status());
        continue;
      }
      values.push_back(Check(*prompt, replies[next], replies[next + 1]));
      next += 2;
    }
    return values;
  }

 private:
  static absl::StatusOr<ScoreValue> Check(const CountingPrompt& prompt,
                                          const absl::StatusOr<std::string>& count_reply,
                                          const absl::StatusOr<std::string>& animal_reply) {
    if (!count_reply.ok()) return count_reply.status();
    if (!animal_reply.ok()) return animal_reply.status();
    const std::vector<std::string> count_words = Words(*count_reply);
    const std::vector<std::string> animal_words = Words(*animal_reply);
    const bool count_correct = Contains(count_words, prompt.count_word) ||
                               Contains(count_words, absl::StrCat(prompt.count));
    const bool animal_correct =
        Contains(animal_words, prompt.singular) || Contains(animal_words, prompt.plural);
    ScoreValue value;
    value.details["count_correct"] = count_correct ? 1 : 0;
    value.details["animal_correct"] = animal_correct ? 1 : 0;
    value.value = (value.details["count_correct"] + value.details["animal_correct"]) / 2;
    value.text = absl::StrCat(*count_reply, "\n", *animal_reply);
    return value;
  }

  const std::shared_ptr<ImageJudge> judge_;
  const int max_new_tokens_;
  ScorerInfo info_;
};

}  // namespace

absl::StatusOr<CountingPrompt> ParseCountingPrompt(const std::string& prompt) {
  const std::vector<std::string> words = Words(prompt);
  if (words.size() == 2) {
    for (size_t count = 1; count < kCountWords.size(); ++count) {
      if (words[0] == kCountWords[count] || words[0] == absl::StrCat(count)) {
        return CountingPrompt{static_cast<int>(count), std::string(kCountWords[count]), words[1],
                              count == 1 ? words[1] : Singular(words[1])};
      }
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "prompt `", prompt, "` asks for no number of animals: expected one like `two cats`"));
}

std::unique_ptr<Scorer> MakeCountingScorer(std::shared_ptr<ImageJudge> judge, int max_new_tokens) {
  return std::make_unique<CountingScorer>(std::move(judge), max_new_tokens);
}

}  // namespace ddpo
