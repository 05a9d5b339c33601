#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/nn/json_config.h"

namespace ddpo {

// The steps around the model of a tokenizer.json, made from its objects `normalizer`,
// `pre_tokenizer` and `decoder`. A type or option that is not supported is INVALID_ARGUMENT. An
// absent object makes a step that changes nothing.

// Rewrites a text: Prepend, Replace, Lowercase, NFC, NFD, NFKC, NFKD and Sequence.
using Normalizer = std::function<std::string(std::string)>;
absl::StatusOr<Normalizer> MakeNormalizer(const JsonConfig& config);

// A word on its way to the model; `at_start` where it begins the whole text.
struct Word {
  std::string text;
  bool at_start = false;
};
// Cuts words into smaller ones: Metaspace, ByteLevel, Split, Digits and Sequence.
using PreTokenizer = std::function<std::vector<Word>(std::vector<Word>)>;
absl::StatusOr<PreTokenizer> MakePreTokenizer(const JsonConfig& config);

// Rewrites tokens, which are then joined: Replace, ByteFallback, Fuse, Strip, Metaspace, ByteLevel
// and Sequence.
using Decoder = std::function<std::vector<std::string>(std::vector<std::string>)>;
absl::StatusOr<Decoder> MakeDecoder(const JsonConfig& config);

}  // namespace ddpo
