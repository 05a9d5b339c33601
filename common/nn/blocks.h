#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "common/nn/weights.h"
#include "common/nn/winograd.h"

namespace ddpo {

// The layers that the networks are built from. Each loads from the keys under its prefix and is
// differentiable in its weights where they require gradients. Images are [B,C,H,W], channels last
// in memory.

class Linear {
 public:
  static absl::StatusOr<Linear> Load(WeightLoader& loader, const std::string& prefix, int64_t in,
                                     int64_t out, bool bias = true);
  // The same from the weight of a 1 × 1 convolution, [out,in,1,1].
  static absl::StatusOr<Linear> LoadFromConv1x1(WeightLoader& loader, const std::string& prefix,
                                                int64_t in, int64_t out);

  // [...,in] -> [...,out]
  at::Tensor Forward(const at::Tensor& x) const;

 private:
  at::Tensor weight_, bias_;
};

class Conv2d {
 public:
  // Kernel `size` × `size`; padding keeps the size at stride 1.
  static absl::StatusOr<Conv2d> Load(WeightLoader& loader, const std::string& prefix, int64_t in,
                                     int64_t out, int64_t size, int64_t stride = 1,
                                     std::optional<int64_t> padding = std::nullopt);

  // shift [B,O], added to every pixel of a row, and residual, of the output's shape, are added
  // where they are defined.
  at::Tensor Forward(const at::Tensor& x, const at::Tensor& shift = {},
                     const at::Tensor& residual = {}) const;

 private:
  at::Tensor weight_, bias_;
  int64_t stride_ = 1;
  int64_t padding_ = 0;
  WinogradConv winograd_;
};

class GroupNorm {
 public:
  static absl::StatusOr<GroupNorm> Load(WeightLoader& loader, const std::string& prefix,
                                        int64_t channels, int64_t groups, double eps);

  at::Tensor Forward(const at::Tensor& x) const;
  // Followed by SiLU.
  at::Tensor ForwardSilu(const at::Tensor& x) const;

 private:
  at::Tensor weight_, bias_;
  int64_t groups_ = 1;
  double eps_ = 1e-5;
};

class LayerNorm {
 public:
  static absl::StatusOr<LayerNorm> Load(WeightLoader& loader, const std::string& prefix,
                                        int64_t channels, double eps);

  // Over the last dimension.
  at::Tensor Forward(const at::Tensor& x) const;

 private:
  at::Tensor weight_, bias_;
  double eps_ = 1e-5;
};

// diffusers' ResnetBlock2D with SiLU.
class ResnetBlock2D {
 public:
  struct Options {
    int64_t in_channels = 0;
    int64_t out_channels = 0;
    // 0 for a block without a time embedding, as in the VAE.
    int64_t time_embedding_dim = 0;
    int64_t norm_num_groups = 32;
    double norm_eps = 1e-5;
    double output_scale_factor = 1.0;
  };
  static absl::StatusOr<ResnetBlock2D> Load(WeightLoader& loader, const std::string& prefix,
                                            const Options& options);

  // time_embedding [B,E] after its SiLU, which is the same for all blocks; undefined where the
  // block takes none.
  at::Tensor Forward(const at::Tensor& x, const at::Tensor& time_embedding = {}) const;

 private:
  GroupNorm norm1_, norm2_;
  Conv2d conv1_, conv2_;
  std::optional<Linear> time_projection_;
  std::optional<Linear> shortcut_;
  double output_scale_factor_ = 1.0;
};

// Halves height and width by a convolution of stride 2.
class Downsample2D {
 public:
  // With padding 0 a row and a column of zeros are added below and at the right, as diffusers does
  // in the VAE.
  static absl::StatusOr<Downsample2D> Load(WeightLoader& loader, const std::string& prefix,
                                           int64_t channels, int64_t padding);

  at::Tensor Forward(const at::Tensor& x) const;

 private:
  Conv2d conv_;
  bool pad_by_hand_ = false;
};

// Enlarges to the nearest neighbour and convolves.
class Upsample2D {
 public:
  static absl::StatusOr<Upsample2D> Load(WeightLoader& loader, const std::string& prefix,
                                         int64_t channels);

  // To `size` (height, width), or to twice the size if it is empty.
  at::Tensor Forward(const at::Tensor& x, at::IntArrayRef size = {}) const;

 private:
  Conv2d conv_;
};

}  // namespace ddpo
