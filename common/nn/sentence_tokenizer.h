#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/nn/subword_model.h"
#include "common/nn/tokenizer_config.h"

namespace ddpo {

// The tokenizer of a BERT-family encoder's folder, with the results of transformers' BertTokenizer,
// RobertaTokenizer or DebertaTokenizer (the slow ones, which bert-score uses) under bert-score's
// sent_encode.
class SentenceTokenizer {
 public:
  // `model_type` is that of config.json: bert, roberta or deberta. NOT_FOUND for a missing
  // vocabulary; INVALID_ARGUMENT, which names file and key, for what is damaged or not supported.
  static absl::StatusOr<std::unique_ptr<SentenceTokenizer>> Load(const std::string& dir,
                                                                 const std::string& model_type);

  // The tokens of the text, without the white space around it, between cls and sep; at most
  // `max_length` of them, both included. Special tokens that the text spells out become those.
  std::vector<int64_t> Encode(const std::string& text, int64_t max_length) const;

  int64_t cls() const { return cls_; }
  int64_t sep() const { return sep_; }
  int64_t pad() const { return pad_; }
  // model_max_length; huge where the folder does not say.
  int64_t max_length() const { return max_length_; }
  // Token ids are below it.
  int64_t vocabulary() const { return vocabulary_; }

 private:
  SentenceTokenizer() = default;
  absl::Status AddTokens(const std::string& dir, const TokenizerConfig& config);
  absl::StatusOr<int64_t> RequireToken(const std::string& dir, const char* key,
                                       const std::string& token) const;

  std::unique_ptr<SubwordModel> model_;
  std::vector<std::unique_ptr<AddedToken>> added_;
  std::vector<const AddedToken*> tokens_;  // the same, for SplitAtTokens
  bool space_first_ = false;
  int64_t cls_ = 0, sep_ = 0, pad_ = 0;
  int64_t max_length_ = 0;
  int64_t vocabulary_ = 0;
};

}  // namespace ddpo
