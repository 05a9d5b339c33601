#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/nn/bert_score.h"
#include "reward_server/judges/image_judge.h"
#include "reward_server/scorer.h"

namespace ddpo {

struct AlignmentOptions {
  // What the judge is asked about each image.
  std::string question = "Answer concisely: what is going on in this image?";
  // Longest reply, in tokens.
  int max_new_tokens = 64;
  // Which of recall, precision and f1 is the value.
  std::string value = "recall";
  // What the reply is compared with; {prompt} stands for the prompt.
  std::string reference = "The image contains {prompt}";
};

// The alignment reward of arXiv 2305.13301, section 5.2: a vision-language model says what is going
// on in the image, and the value is its reply's BERTScore against the prompt. Details: recall,
// precision and f1; text: the reply. A judge's error is the image's error; an empty reply scores 0,
// before rescaling, as with bert-score.
//
// Judge and BERTScore may be shared with other scorers. INVALID_ARGUMENT for an unknown `value` and
// for a reference without {prompt}, which would be a reward that does not ask for anything.
absl::StatusOr<std::unique_ptr<Scorer>> MakeAlignmentScorer(
    std::shared_ptr<ImageJudge> judge, std::shared_ptr<const BertScorer> bert_score,
    const AlignmentOptions& options);

}  // namespace ddpo
