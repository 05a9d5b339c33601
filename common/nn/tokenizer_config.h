#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/nn/json_config.h"

namespace ddpo {

// A token that is found in a text before anything else is done with it; transformers' AddedToken.
struct AddedToken {
  std::string content;
  int64_t id = 0;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // and after it
  bool normalized = false;   // looked for after the normalizer rather than before
  bool special = false;      // left out of decoded text
};

// Reads an entry of added_tokens_decoder (whose `id` is its key) or of tokenizer.json's
// added_tokens.
absl::StatusOr<AddedToken> ReadAddedToken(const JsonConfig& entry, int64_t id);

// What tokenizer_config.json, special_tokens_map.json and added_tokens.json say; all of them may
// be absent.
struct TokenizerConfig {
  std::string tokenizer_class;
  std::map<std::string, AddedToken> added_tokens;  // by content
  // Texts; empty where there is none.
  std::string bos_token, eos_token, unk_token;
  std::string pad_token, sep_token, cls_token, mask_token;
  // All of them, the pad token and the additional ones included.
  std::vector<std::string> special_tokens;
  bool add_bos_token = true;
  bool add_eos_token = false;
  bool legacy = true;
  bool add_prefix_space = true;
  bool clean_up_tokenization_spaces = false;

  bool IsLlama() const {
    return tokenizer_class == "LlamaTokenizer" || tokenizer_class == "LlamaTokenizerFast";
  }
};
// `default_class` where the folder names none.
absl::StatusOr<TokenizerConfig> ReadTokenizerConfig(
    const std::string& dir, const std::string& default_class = "LlamaTokenizerFast");

// A stretch of text: an added token or what stands between two of them.
struct TextPiece {
  std::string text;
  const AddedToken* token = nullptr;
};

// Cuts a text at the tokens, the first and of those the longest first, as the tokenizers library
// does. Empty pieces are left out.
std::vector<TextPiece> SplitAtTokens(const std::string& text,
                                     const std::vector<const AddedToken*>& tokens);

// The same as transformers' tokenizers in Python do it (PreTrainedTokenizer.tokenize), where a
// single word is one with spaces around it; what is none stays in the text beside it.
std::vector<TextPiece> SplitAtTokensAsPython(const std::string& text,
                                             const std::vector<const AddedToken*>& tokens);

// The same without regard to what the tokens ask of the text around them.
std::vector<TextPiece> FindTokens(const std::string& text,
                                  const std::vector<const AddedToken*>& tokens);

// Python's str.lstrip, str.rstrip and str.strip.
std::string StripLeftAsPython(const std::string& text);
std::string StripRightAsPython(const std::string& text);
std::string StripAsPython(const std::string& text);

// transformers' clean_up_tokenization: no space before punctuation and English contractions.
std::string CleanUpSpaces(std::string text);

}  // namespace ddpo
