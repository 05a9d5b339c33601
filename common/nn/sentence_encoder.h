#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/nn/json_config.h"
#include "common/nn/network_options.h"
#include "common/nn/weights.h"

namespace ddpo {

// A BERT-family encoder up to one of its layers.
class SentenceEncoder {
 public:
  virtual ~SentenceEncoder() = default;

  // ids [B,L] int64, is_token [B,L] bool, false where a shorter row is filled up on the right ->
  // [B,L,D] float32: the layer's hidden states, which mean nothing where there is no token. Throws
  // c10::Error for an id outside the vocabulary.
  virtual at::Tensor Forward(const at::Tensor& ids, const at::Tensor& is_token) const = 0;

  virtual int64_t vocabulary() const = 0;  // token ids are below it
  virtual int64_t positions() const = 0;   // tokens of the longest sentence
};

// From a folder in transformers' layout: config.json (model_type bert, roberta or deberta) and
// model.safetensors, with or without the prefix of a model with a head. `layer` is the one whose
// output is given, 0 for the embeddings. Errors name file and key: NOT_FOUND, INVALID_ARGUMENT.
absl::StatusOr<std::unique_ptr<SentenceEncoder>> LoadSentenceEncoder(const std::string& dir,
                                                                     int64_t layer,
                                                                     const NetworkOptions& options);

// What the families' config.json have in common.
struct EncoderSizes {
  int64_t vocabulary = 0;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t positions = 0;
  int64_t token_types = 0;
  double layer_norm_eps = 0;
  std::string activation = "gelu";
};
// `defaults` are transformers' own for the family.
absl::StatusOr<EncoderSizes> ReadEncoderSizes(const JsonConfig& config,
                                              const EncoderSizes& defaults);

// x after the activation that config.json calls `name`, which ReadEncoderSizes has checked.
at::Tensor Activate(const std::string& name, const at::Tensor& x);

// The families' own, called by LoadSentenceEncoder. `prefix` comes before every key.
absl::StatusOr<std::unique_ptr<SentenceEncoder>> LoadBertEncoder(const JsonConfig& config,
                                                                 WeightLoader& loader,
                                                                 const std::string& prefix,
                                                                 int64_t layer);
absl::StatusOr<std::unique_ptr<SentenceEncoder>> LoadDebertaEncoder(const JsonConfig& config,
                                                                    WeightLoader& loader,
                                                                    const std::string& prefix,
                                                                    int64_t layer);

}  // namespace ddpo
