#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/nn/llama_tokenizer.h"
#include "common/nn/tokenizer_config.h"

namespace ddpo {

// transformers' LlamaTokenizer (the one in Python, with and without its `legacy` treatment of
// spaces) over a SentencePiece tokenizer.model.
absl::StatusOr<std::unique_ptr<LlamaTokenizer>> LoadSentencePieceTokenizer(const std::string& path,
                                                                           TokenizerConfig config);

}  // namespace ddpo
