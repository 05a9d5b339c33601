#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace ddpo {

// The tokenizer of a language model's folder, with transformers' results: of the LlamaTokenizerFast
// or PreTrainedTokenizerFast where the folder has a tokenizer.json (byte-pair encoding of either
// family: SentencePiece-like with byte fallback, or byte-level as GPT-2 and Llama 3), else of the
// LlamaTokenizer over a SentencePiece tokenizer.model.
class LlamaTokenizer {
 public:
  // NOT_FOUND where the folder has neither file; INVALID_ARGUMENT, which names file and key, for
  // what is damaged or not supported.
  static absl::StatusOr<std::unique_ptr<LlamaTokenizer>> Load(const std::string& dir);
  virtual ~LlamaTokenizer() = default;

  // Added tokens that the text spells out become those tokens. With `add_special_tokens` the start
  // token, and what else the folder asks for, stands around the text.
  virtual std::vector<int64_t> Encode(const std::string& text, bool add_special_tokens) const = 0;

  // The text of tokens, without the special ones. Unknown numbers are skipped; damaged UTF-8
  // becomes U+FFFD.
  virtual std::string Decode(absl::Span<const int64_t> ids) const = 0;

  virtual std::optional<int64_t> TokenId(const std::string& token) const = 0;
  // Empty where there is none.
  virtual const std::string& bos_token() const = 0;
  virtual const std::string& eos_token() const = 0;
};

}  // namespace ddpo
