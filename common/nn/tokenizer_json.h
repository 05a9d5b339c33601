#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/nn/llama_tokenizer.h"
#include "common/nn/tokenizer_config.h"

namespace ddpo {

// The tokenizer that a tokenizer.json describes (format of the tokenizers library), with a BPE
// model.
absl::StatusOr<std::unique_ptr<LlamaTokenizer>> LoadTokenizerJson(const std::string& path,
                                                                  TokenizerConfig config);

}  // namespace ddpo
