#pragma once

#include <map>
#include <string>
#include <vector>

#include "reward_server/judges/image_judge.h"

namespace ddpo::testing {

// Answers from a table; a question that is not in it cannot be answered.
class TableJudge : public ImageJudge {
 public:
  std::map<std::string, std::string> replies;
  std::vector<std::string> asked;
  std::vector<int> max_new_tokens;

  std::string digest() const override { return "table"; }
  int max_batch_size() const override { return 8; }
  std::vector<absl::StatusOr<std::string>> Answer(
      absl::Span<const ImageQuestion> questions) override {
    std::vector<absl::StatusOr<std::string>> answers;
    for (const ImageQuestion& question : questions) {
      asked.push_back(question.text);
      max_new_tokens.push_back(question.max_new_tokens);
      const auto reply = replies.find(question.text);
      if (reply == replies.end()) {
        answers.push_back(absl::UnavailableError("the model is loading"));
      } else {
        answers.push_back(reply->second);
      }
    }
    return answers;
  }
};

}  // namespace ddpo::testing
