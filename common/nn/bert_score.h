#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace ddpo {

struct BertScorerOptions {
  // Folder of a BERT, RoBERTa or DeBERTa encoder in transformers' layout.
  std::string encoder_dir;
  // Layer whose hidden states are compared, 0 for the embeddings; absent: the one that bert-score
  // chose for the model, by `_name_or_path` of config.json or the folder's name.
  std::optional<int64_t> layer;
  // A baseline file of bert-score (rescale_baseline/LANG/MODEL.tsv) for rescaling, or empty.
  std::string baseline_file;
  // As in ParseNetworkOptions.
  std::string dtype = "float32";
  std::string device = "cpu";
};

struct BertScore {
  double precision = 0;
  double recall = 0;
  double f1 = 0;
};

// BERTScore (arXiv 1904.09675) with the results of bert-score 0.3.13: greedy matching of the
// tokens' hidden states by cosine, no idf weights, cls and sep matched against but not counted.
// Thread-safe.
class BertScorer {
 public:
  // Errors name file and key: NOT_FOUND, INVALID_ARGUMENT for what is damaged or not supported.
  static absl::StatusOr<std::unique_ptr<BertScorer>> Load(const BertScorerOptions& options);
  ~BertScorer();

  // One score for each pair, in their order. Longer sentences than the encoder can take are cut.
  // A pair with an empty sentence has precision, recall and F1 0, before rescaling.
  //
  // As in bert-score, pairs are filled up with nothing to the longest of up to 64: a token of a
  // pair that is shorter matches that nothing at similarity 0 where all else is below. A pair's
  // score is independent of others where it is scored alone.
  //
  // INVALID_ARGUMENT for lists of different lengths and for a sentence without any words but the
  // tokens cls and sep spelt out; INTERNAL for what LibTorch reports.
  absl::StatusOr<std::vector<BertScore>> Score(absl::Span<const std::string> candidates,
                                               absl::Span<const std::string> references) const;

  // SHA-256 over encoder, layer, baseline and number type: equal digests score alike.
  const std::string& digest() const;
  int64_t layer() const;
  // Whether scores of unrelated sentences are mapped to 0.
  bool is_rescaled() const;

 private:
  struct Impl;
  explicit BertScorer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ddpo
