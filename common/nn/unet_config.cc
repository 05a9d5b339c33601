#include "common/nn/unet_config.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/nn/json_config.h"

namespace ddpo {
namespace {

using Json = nlohmann::json;

// Keys that switch on something this UNet does not do, with the values that leave it off.
const std::map<std::string, std::vector<Json>>& FixedKeys() {
  static const auto& keys = *new std::map<std::string, std::vector<Json>>{
      {"_class_name", {"UNet2DConditionModel"}},
      {"act_fn", {"silu", "swish"}},
      {"addition_embed_type", {nullptr}},
      {"addition_time_embed_dim", {nullptr}},
      {"attention_type", {"default"}},
      {"center_input_sample", {false}},
      {"class_embed_type", {nullptr}},
      {"class_embeddings_concat", {false}},
      {"conv_in_kernel", {3}},
      {"conv_out_kernel", {3}},
      {"cross_attention_norm", {nullptr}},
      {"dual_cross_attention", {false}},
      {"encoder_hid_dim", {nullptr}},
      {"encoder_hid_dim_type", {nullptr}},
      {"mid_block_only_cross_attention", {nullptr, false}},
      {"num_attention_heads", {nullptr}},
      {"num_class_embeds", {nullptr}},
      {"projection_class_embeddings_input_dim", {nullptr}},
      {"resnet_out_scale_factor", {1.0}},
      {"resnet_skip_time_act", {false}},
      {"resnet_time_scale_shift", {"default"}},
      {"reverse_transformer_layers_per_block", {nullptr}},
      {"time_cond_proj_dim", {nullptr}},
      {"time_embedding_act_fn", {nullptr}},
      {"time_embedding_dim", {nullptr}},
      {"time_embedding_type", {"positional"}},
      {"timestep_post_act", {nullptr}},
      {"upcast_attention", {false}},
  };
  return keys;
}

// Keys that ReadUNetConfig reads, for whose absence diffusers has a default that is not null, and
// two that change nothing: dropout acts in training only, and addition_embed_type_num_heads belongs
// to an embedding that is refused.
constexpr const char* kReadKeys[] = {
    "addition_embed_type_num_heads",
    "attention_head_dim",
    "block_out_channels",
    "cross_attention_dim",
    "down_block_types",
    "downsample_padding",
    "dropout",
    "flip_sin_to_cos",
    "freq_shift",
    "in_channels",
    "layers_per_block",
    "mid_block_scale_factor",
    "mid_block_type",
    "norm_eps",
    "norm_num_groups",
    "only_cross_attention",
    "out_channels",
    "sample_size",
    "transformer_layers_per_block",
    "up_block_types",
    "use_linear_projection",
};

// Bounds that keep a damaged file from asking for absurd sizes.
constexpr int64_t kMaxSize = 1 << 20;
constexpr int64_t kMaxLayers = 64;

absl::Status RefuseUnsupported(const JsonConfig& config) {
  for (const auto& [key, value] : config.json().items()) {
    const auto fixed = FixedKeys().find(key);
    if (fixed != FixedKeys().end()) {
      const std::vector<Json>& allowed = fixed->second;
      if (std::find(allowed.begin(), allowed.end(), value) != allowed.end()) continue;
      std::string expected = allowed.front().dump();
      for (size_t i = 1; i < allowed.size(); ++i) {
        absl::StrAppend(&expected, " or ", allowed[i].dump());
      }
      return config.Error(key, absl::StrCat(expected, " (the Stable Diffusion 1.x family)"));
    }
    if (std::find(std::begin(kReadKeys), std::end(kReadKeys), key) != std::end(kReadKeys)) {
      if (!value.is_null()) continue;
      return config.Error(key, "a value, or no such key");
    }
    // Keys with an underscore are diffusers' notes to itself; a key that is null or false is a
    // feature that is off.
    if (key.starts_with("_") || value.is_null() || value == false) continue;
    return config.Error(key, "no such key, null or false (the Stable Diffusion 1.x family)");
  }
  return absl::OkStatus();
}

absl::Status RefuseOnlyCrossAttention(const JsonConfig& config) {
  const std::string key = "only_cross_attention";
  if (!config.Has(key)) return absl::OkStatus();
  const Json& value = config.json()[key];
  const auto is_false = [](const Json& level) { return level == false; };
  if (is_false(value) || (value.is_array() && std::all_of(value.begin(), value.end(), is_false))) {
    return absl::OkStatus();
  }
  return config.Error(key, "false");
}

absl::StatusOr<bool> MidBlockAttention(const JsonConfig& config) {
  const std::string key = "mid_block_type";
  DDPO_ASSIGN_OR_RETURN(const std::string type, config.String(key, "UNetMidBlock2DCrossAttn"));
  if (type == "UNetMidBlock2DCrossAttn") return true;
  if (type == "UNetMidBlock2D") return false;
  return config.Error(key, "\"UNetMidBlock2DCrossAttn\" or \"UNetMidBlock2D\"");
}

// One number for all levels or a list with one for each.
absl::StatusOr<std::vector<int64_t>> IntByLevel(const JsonConfig& config, const std::string& key,
                                                size_t levels, int64_t fallback, int64_t high) {
  if (!config.Has(key) || !config.json()[key].is_array()) {
    DDPO_ASSIGN_OR_RETURN(const int64_t value, config.Int(key, fallback, 1, high));
    return std::vector<int64_t>(levels, value);
  }
  std::vector<int64_t> values;
  for (const Json& value : config.json()[key]) {
    if (!value.is_number_integer() || value < 1 || value > high) {
      return config.Error(key, absl::StrCat("whole numbers in 1 … ", high));
    }
    values.push_back(value.get<int64_t>());
  }
  if (values.size() == levels) return values;
  return config.Error(
      key, absl::StrCat("a number or a list of ", levels, ", one for each of block_out_channels"));
}

// Block types of the levels, true where `with_attention` stands and false for `plain`.
absl::StatusOr<std::vector<bool>> BlockTypes(const JsonConfig& config, const std::string& key,
                                             size_t levels, const std::string& with_attention,
                                             const std::string& plain,
                                             const std::vector<bool>& fallback) {
  if (!config.Has(key) && fallback.size() == levels) return fallback;
  const std::string expected =
      absl::StrCat("a list of ", levels, " of ", with_attention, " and ", plain);
  if (!config.Has(key) || !config.json()[key].is_array() || config.json()[key].size() != levels) {
    return config.Error(key, expected);
  }
  std::vector<bool> attention;
  for (const Json& type : config.json()[key]) {
    if (type != with_attention && type != plain) return config.Error(key, expected);
    attention.push_back(type == with_attention);
  }
  return attention;
}

absl::Status ReadLevels(const JsonConfig& json, UNetConfig* config) {
  DDPO_ASSIGN_OR_RETURN(const auto channels,
                        json.IntList("block_out_channels", {320, 640, 1280, 1280}));
  const size_t levels = channels.size();
  DDPO_ASSIGN_OR_RETURN(const auto layers,
                        IntByLevel(json, "layers_per_block", levels, 2, kMaxLayers));
  // diffusers' naming: attention_head_dim is the number of heads
  // (https://github.com/huggingface/diffusers/issues/2011).
  DDPO_ASSIGN_OR_RETURN(const auto heads,
                        IntByLevel(json, "attention_head_dim", levels, 8, kMaxSize));
  DDPO_ASSIGN_OR_RETURN(const auto transformer_layers,
                        IntByLevel(json, "transformer_layers_per_block", levels, 1, kMaxLayers));
  DDPO_ASSIGN_OR_RETURN(const auto down,
                        BlockTypes(json, "down_block_types", levels, "CrossAttnDownBlock2D",
                                   "DownBlock2D", {true, true, true, false}));
  // From the lowest level up.
  DDPO_ASSIGN_OR_RETURN(
      const auto up, BlockTypes(json, "up_block_types", levels, "CrossAttnUpBlock2D", "UpBlock2D",
                                {false, true, true, true}));
  for (size_t i = 0; i < levels; ++i) {
    config->levels.push_back({.channels = channels[i],
                              .layers = layers[i],
                              .heads = heads[i],
                              .transformer_layers = transformer_layers[i],
                              .down_attention = down[i],
                              .up_attention = up[levels - 1 - i]});
    const UNetLevelConfig& level = config->levels.back();
    if (level.channels % config->norm_num_groups != 0) {
      return json.Error("block_out_channels", absl::StrCat("multiples of norm_num_groups (",
                                                           config->norm_num_groups, ")"));
    }
    const bool has_attention = level.down_attention || level.up_attention ||
                               (i == levels - 1 && config->mid_block_attention);
    if (has_attention && level.channels % level.heads != 0) {
      return json.Error(
          "attention_head_dim",
          absl::StrCat("a number of heads that divides the ", level.channels, " channels of level ",
                       i, " (diffusers' name for the number of heads)"));
    }
  }
  if (channels.front() % 2 != 0) {
    return json.Error("block_out_channels", "an even first number");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<UNetConfig> ReadUNetConfig(const std::string& path) {
  DDPO_ASSIGN_OR_RETURN(const JsonConfig json, JsonConfig::Read(path));
  if (!json.Has("_class_name")) return json.Error("_class_name", "\"UNet2DConditionModel\"");
  DDPO_RETURN_IF_ERROR(RefuseUnsupported(json));
  DDPO_RETURN_IF_ERROR(RefuseOnlyCrossAttention(json));

  UNetConfig config;
  if (!json.Has("sample_size")) return json.Error("sample_size", "a whole number");
  DDPO_ASSIGN_OR_RETURN(config.sample_size, json.Int("sample_size", 0));
  DDPO_ASSIGN_OR_RETURN(config.in_channels, json.Int("in_channels", config.in_channels));
  DDPO_ASSIGN_OR_RETURN(config.out_channels, json.Int("out_channels", config.out_channels));
  DDPO_ASSIGN_OR_RETURN(config.downsample_padding,
                        json.Int("downsample_padding", config.downsample_padding, 0, 1));
  DDPO_ASSIGN_OR_RETURN(config.norm_num_groups,
                        json.Int("norm_num_groups", config.norm_num_groups));
  DDPO_ASSIGN_OR_RETURN(config.cross_attention_dim,
                        json.Int("cross_attention_dim", config.cross_attention_dim));
  DDPO_ASSIGN_OR_RETURN(config.norm_eps, json.Number("norm_eps", config.norm_eps));
  DDPO_ASSIGN_OR_RETURN(config.mid_block_scale_factor,
                        json.Number("mid_block_scale_factor", config.mid_block_scale_factor));
  DDPO_ASSIGN_OR_RETURN(config.freq_shift, json.Number("freq_shift", config.freq_shift));
  DDPO_ASSIGN_OR_RETURN(config.flip_sin_to_cos,
                        json.Bool("flip_sin_to_cos", config.flip_sin_to_cos));
  DDPO_ASSIGN_OR_RETURN(config.use_linear_projection,
                        json.Bool("use_linear_projection", config.use_linear_projection));
  DDPO_ASSIGN_OR_RETURN(config.mid_block_attention, MidBlockAttention(json));
  DDPO_RETURN_IF_ERROR(ReadLevels(json, &config));
  return config;
}

}  // namespace ddpo
