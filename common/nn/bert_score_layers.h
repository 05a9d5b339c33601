#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace ddpo {

// The layer whose hidden states agree best with people's judgement (WMT16), from bert-score
// 0.3.13's model2layers; for the BERT, RoBERTa and DeBERTa-v1 models of that table. `name` may be
// that of the hub, as in `microsoft/deberta-xlarge-mnli`, or a path that ends in its last part.
std::optional<int64_t> BertScoreLayer(const std::string& name);

}  // namespace ddpo
