#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/nn/unet.h"

namespace ddpo {

// diffusers' AutoencoderKL.
class Vae {
 public:
  static absl::StatusOr<std::unique_ptr<Vae>> Load(const std::string& dir,
                                                   const NetworkOptions& options);
  ~Vae();

  // latents [B,4,h,w], already divided by the scaling factor -> image [B,3,H,W] in −1…1, float32.
  at::Tensor Decode(const at::Tensor& latents) const;

  struct Posterior {
    at::Tensor mean;    // [B,4,h,w]
    at::Tensor logvar;  // clamped to [−30, 20]
  };
  Posterior Encode(const at::Tensor& image) const;

  double scaling_factor() const;
  int64_t latent_channels() const;
  // Image pixels for one latent pixel along a side.
  int64_t upscale() const;

 private:
  struct Impl;
  explicit Vae(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ddpo
