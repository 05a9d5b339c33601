#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/nn/json_config.h"

namespace ddpo {

// Byte-pair encoding as the tokenizers library does it (its models::bpe::BPE), from the `model`
// object of a tokenizer.json.
class BytePairEncoder {
 public:
  static absl::StatusOr<BytePairEncoder> Load(const JsonConfig& model);

  // Appends the tokens of one word. What the vocabulary lacks becomes its bytes' tokens <0x..>
  // (byte_fallback), the unknown token, or, where there is none, nothing.
  void Encode(const std::string& word, std::vector<int64_t>* ids) const;

  std::optional<int64_t> TokenId(const std::string& token) const;
  // Tokens by number, as the file spells them.
  const std::unordered_map<int64_t, std::string>& tokens() const { return tokens_; }

 private:
  struct Merge {
    int64_t rank;
    int64_t result;
  };
  BytePairEncoder() = default;
  absl::Status ReadVocabulary(const JsonConfig& model);
  absl::Status ReadMerges(const JsonConfig& model);
  absl::Status AddMerge(const JsonConfig& model, const std::string& left, const std::string& right);
  void AppendCharacter(const std::string& character, bool* after_unknown,
                       std::vector<int64_t>* ids) const;
  const Merge* FindMerge(int64_t left, int64_t right) const;
  std::vector<int64_t> MergeAll(const std::vector<int64_t>& ids) const;

  std::unordered_map<std::string, int64_t> ids_;
  std::unordered_map<int64_t, std::string> tokens_;
  std::unordered_map<uint64_t, Merge> merges_;  // by both tokens' numbers
  std::optional<int64_t> unknown_;
  bool byte_fallback_ = false;
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;
};

}  // namespace ddpo
