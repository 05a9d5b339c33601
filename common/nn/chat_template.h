#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "common/nn/jinja.h"

namespace ddpo {

// How a vision-language model's folder wants to be asked: the chat template of chat_template.jinja,
// chat_template.json, processor_config.json or tokenizer_config.json, the first of them that has
// one; without any, LLaVA-1.5's own `USER: <image>\n{question} ASSISTANT:`.
class ChatTemplate {
 public:
  struct Tokens {
    std::string image = "<image>";
    std::string bos, eos;
  };
  // INVALID_ARGUMENT names the file and the line that is damaged or not supported.
  static absl::StatusOr<ChatTemplate> Load(const std::string& dir, const Tokens& tokens);

  // The text of one user's turn with an image and a question, and of what begins the answer.
  // INVALID_ARGUMENT where the image token does not come out once.
  absl::StatusOr<std::string> Render(const std::string& question) const;

 private:
  Tokens tokens_;
  std::string path_;
  std::optional<JinjaTemplate> jinja_;
};

}  // namespace ddpo
