#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/nn/subword_model.h"

namespace ddpo {

// GPT-2's byte-level byte-pair encoding from vocab.json and merges.txt, as transformers'
// RobertaTokenizer and DebertaTokenizer use it. NOT_FOUND without the files; INVALID_ARGUMENT,
// which names file and key, for what is damaged.
absl::StatusOr<std::unique_ptr<SubwordModel>> LoadByteLevelBpe(const std::string& dir,
                                                               const std::string& unknown);

}  // namespace ddpo
