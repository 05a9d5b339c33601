#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace ddpo {

// transformers' CLIPTokenizer (as it works without ftfy): byte-level BPE over lower-cased text,
// from vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json.
class ClipTokenizer {
 public:
  // NOT_FOUND for a missing file; INVALID_ARGUMENT with file, and line or key, for a damaged one.
  static absl::StatusOr<std::unique_ptr<ClipTokenizer>> Load(const std::string& dir);
  ~ClipTokenizer();

  // Start token, text, end token, truncated and padded to model_max_length.
  std::vector<int64_t> Encode(const std::string& text) const;

  int64_t model_max_length() const;
  int64_t max_token_id() const;

 private:
  struct Impl;
  explicit ClipTokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ddpo
