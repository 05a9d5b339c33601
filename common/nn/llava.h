#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/tensors/image.h"

namespace ddpo {

struct LlavaOptions {
  // Number type that holds the weights and computes: float32, float16 or bfloat16.
  std::string dtype = "float32";
  // cpu, or cuda in a build with CUDA.
  std::string device = "cpu";
  // Most images of one forward pass; more are answered in parts.
  int max_batch_size = 16;
};

struct LlavaQuestion {
  const Image* image = nullptr;  // not owned; lives as long as the call
  std::string text;
  int max_new_tokens = 64;
};

struct LlavaReply {
  // What was generated, the end token included where there was one in time.
  std::vector<int64_t> token_ids;
  // Without special tokens.
  std::string text;
};

// transformers' LlavaForConditionalGeneration with its processor (LLaVA-1.5, arXiv 2310.03744): a
// CLIP image tower whose patches a two-layer projector puts among the tokens of a LLaMA.
class Llava {
 public:
  // A folder in transformers' layout: config.json, preprocessor_config.json, the tokenizer, a chat
  // template or none, and the weights under the keys of transformers before 4.52 or since. Errors
  // name file and key: NOT_FOUND, INVALID_ARGUMENT for what is damaged or not supported.
  static absl::StatusOr<std::unique_ptr<Llava>> Load(const std::string& dir,
                                                     const LlavaOptions& options);
  ~Llava();

  // Greedy replies, one for each question in their order, computed together with padding on the
  // left. INVALID_ARGUMENT for an image without pixels or a question that spells out the image
  // token. Not thread-safe.
  std::vector<absl::StatusOr<LlavaReply>> Answer(absl::Span<const LlavaQuestion> questions) const;

  // SHA-256 over weights, configuration and number type: equal digests answer alike.
  const std::string& digest() const;
  int max_batch_size() const;

 private:
  struct Impl;
  explicit Llava(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ddpo
