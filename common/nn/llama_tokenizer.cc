#include "common/nn/llama_tokenizer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/nn/sentencepiece_tokenizer.h"
#include "common/nn/tokenizer_config.h"
#include "common/nn/tokenizer_json.h"

namespace ddpo {

absl::StatusOr<std::unique_ptr<LlamaTokenizer>> LlamaTokenizer::Load(const std::string& dir) {
  DDPO_ASSIGN_OR_RETURN(TokenizerConfig config, ReadTokenizerConfig(dir));
  const std::string json = JoinPath(dir, "tokenizer.json");
  if (FileSystem::Real()->Exists(json)) return LoadTokenizerJson(json, std::move(config));
  const std::string model = JoinPath(dir, "tokenizer.model");
  if (FileSystem::Real()->Exists(model)) {
    return LoadSentencePieceTokenizer(model, std::move(config));
  }
  return absl::NotFoundError(
      absl::StrCat(dir, ": no tokenizer; expected tokenizer.json or tokenizer.model"));
}

}  // namespace ddpo
