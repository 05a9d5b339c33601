#pragma once

#include <ATen/ATen.h>

#include <array>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace ddpo {

// The LAION aesthetic predictor's MLP on CLIP's features: five linear layers, keys
// layers.{0,2,4,6,7}, with nothing but dropout between them.
// Source: https://github.com/christophschuhmann/improved-aesthetic-predictor
class AestheticHead {
 public:
  // A safetensors file or a state dict that torch.save wrote, by its first bytes. The sizes are the
  // file's; the first layer has to take `features`, the last one has to give one number. Errors
  // name the file, the key and both shapes.
  static absl::StatusOr<AestheticHead> Load(const std::string& path, int64_t features,
                                            at::Device device);

  // image_embeds [B,features], which are divided by their norm -> scores [B] float32.
  at::Tensor Score(const at::Tensor& image_embeds) const;

 private:
  struct Layer {
    at::Tensor weight, bias;
  };
  std::array<Layer, 5> layers_;
};

}  // namespace ddpo
