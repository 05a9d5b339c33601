#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "reward_server/judges/image_judge.h"
#include "reward_server/scorer.h"

namespace ddpo {

// What a counting prompt asks for, as in "two cats".
struct CountingPrompt {
  int count = 0;
  std::string count_word;  // "two"
  std::string plural;      // "cats"
  std::string singular;    // "cat"
};

// Reads prompts of 1 … 10 animals, irregular plurals too ("eight wolves"). INVALID_ARGUMENT for
// anything else.
absl::StatusOr<CountingPrompt> ParseCountingPrompt(const std::string& prompt);

// The counting reward of the authors' LLaVA server: the judge is asked "How many {plural} are there
// in this image?" and "What animal is in this image?"; the value is the mean of "the answer is in
// the reply" over both, so 0, 0.5 or 1. Details: count_correct, animal_correct; text: both replies.
// Replies are cut after `max_new_tokens`. Known hack: text drawn into the image fools the judge.
std::unique_ptr<Scorer> MakeCountingScorer(std::shared_ptr<ImageJudge> judge, int max_new_tokens);

}  // namespace ddpo
