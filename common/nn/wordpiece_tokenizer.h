#pragma once

#include <memory>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "common/nn/subword_model.h"

namespace ddpo {

// BERT's vocabulary, as transformers' BertTokenizer reads and uses it: vocab.txt (a token a line),
// and do_lower_case, strip_accents and tokenize_chinese_chars of tokenizer_config.json. Text is
// cleaned, cut at spaces, punctuation and ideographs, and each word into the longest pieces that
// the vocabulary has; a word that cannot be cut is `unknown`. Words that are `special_tokens` stay
// whole. NOT_FOUND without vocab.txt; INVALID_ARGUMENT, which names file and key, for the rest.
absl::StatusOr<std::unique_ptr<SubwordModel>> LoadWordPiece(const std::string& dir,
                                                            const std::string& unknown,
                                                            std::set<std::string> special_tokens);

}  // namespace ddpo
