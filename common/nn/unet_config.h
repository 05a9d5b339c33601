#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace ddpo {

// One level of a UNet: its blocks on the way down and, mirrored, on the way up.
struct UNetLevelConfig {
  int64_t channels = 0;
  int64_t layers = 0;              // ResNets on the way down; one more on the way up
  int64_t heads = 0;               // of each attention
  int64_t transformer_layers = 0;  // in each Transformer2DModel
  bool down_attention = false;     // CrossAttnDownBlock2D rather than DownBlock2D
  bool up_attention = false;       // CrossAttnUpBlock2D rather than UpBlock2D
};

// The config.json of diffusers' UNet2DConditionModel, as far as the SD 1.x family uses it.
struct UNetConfig {
  std::vector<UNetLevelConfig> levels;  // from the latent's own resolution down
  int64_t sample_size = 0;
  int64_t in_channels = 4;
  int64_t out_channels = 4;
  int64_t cross_attention_dim = 1280;
  int64_t downsample_padding = 1;
  int64_t norm_num_groups = 32;
  double norm_eps = 1e-5;
  double mid_block_scale_factor = 1.0;
  double freq_shift = 0;
  bool flip_sin_to_cos = true;
  bool use_linear_projection = false;
  bool mid_block_attention = true;  // UNetMidBlock2DCrossAttn rather than UNetMidBlock2D

  int64_t time_embedding_dim() const { return 4 * levels.front().channels; }
};

// Reads a config.json. INVALID_ARGUMENT names the file, the key, its value and what is supported
// for anything that would change the computation and that UNet does not do.
absl::StatusOr<UNetConfig> ReadUNetConfig(const std::string& path);

}  // namespace ddpo
