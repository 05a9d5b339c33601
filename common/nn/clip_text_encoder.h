#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/nn/unet.h"

namespace ddpo {

// transformers' CLIPTextModel (quick_gelu and gelu; keys with and without the `text_model.`
// prefix).
class ClipTextEncoder {
 public:
  static absl::StatusOr<std::unique_ptr<ClipTextEncoder>> Load(const std::string& dir,
                                                               const NetworkOptions& options);
  ~ClipTextEncoder();

  // input_ids [B,L] int64 -> last_hidden_state [B,L,D] float32 (after the final layer norm).
  at::Tensor Forward(const at::Tensor& input_ids) const;

  int64_t vocabulary() const;  // token ids are below it
  int64_t positions() const;   // tokens of the longest prompt

 private:
  struct Impl;
  explicit ClipTextEncoder(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ddpo
