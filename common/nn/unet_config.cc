#include "common/nn/unet_config.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

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

// Keys that ReadUNetConfig reads, and two that change nothing: dropout acts in training only, and
// addition_embed_type_num_heads belongs to an embedding that is refused.
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

class ConfigReader {
 public:
  ConfigReader(const std::string& path, const Json& json) : path_(path), json_(json) {}

  absl::Status Error(const std::string& key, const std::string& expected) const {
    const std::string value = json_.contains(key) ? json_[key].dump() : "missing";
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": ", key, " is ", value, ", expected ", expected));
  }

  absl::Status RefuseUnsupported() const {
    for (const auto& [key, value] : json_.items()) {
      const auto fixed = FixedKeys().find(key);
      if (fixed != FixedKeys().end()) {
        const std::vector<Json>& allowed = fixed->second;
        if (std::find(allowed.begin(), allowed.end(), value) != allowed.end()) continue;
        std::string expected = allowed.front().dump();
        for (size_t i = 1; i < allowed.size(); ++i) {
          absl::StrAppend(&expected, " or ", allowed[i].dump());
        }
        return Error(key, absl::StrCat(expected, " (the Stable Diffusion 1.x family)"));
      }
      if (std::find(std::begin(kReadKeys), std::end(kReadKeys), key) != std::end(kReadKeys)) {
        continue;
      }
      // Keys with an underscore are diffusers' notes to itself; a key that is null or false is a
      // feature that is off.
      if (key.starts_with("_") || value.is_null() || value == false) continue;
      return Error(key, "no such key, null or false (the Stable Diffusion 1.x family)");
    }
    return absl::OkStatus();
  }

  absl::Status Int(const std::string& key, int64_t low, int64_t* value) const {
    if (!json_.contains(key)) return absl::OkStatus();
    return ToInt(key, json_[key], low, kMaxSize, value);
  }

  absl::Status Number(const std::string& key, double* value) const {
    if (!json_.contains(key)) return absl::OkStatus();
    if (!json_[key].is_number()) return Error(key, "a number");
    *value = json_[key].get<double>();
    return absl::OkStatus();
  }

  absl::Status Bool(const std::string& key, bool* value) const {
    if (!json_.contains(key)) return absl::OkStatus();
    if (!json_[key].is_boolean()) return Error(key, "true or false");
    *value = json_[key].get<bool>();
    return absl::OkStatus();
  }

  // One number for all levels or a list with one for each.
  absl::StatusOr<std::vector<int64_t>> IntByLevel(const std::string& key, size_t levels,
                                                  int64_t fallback, int64_t high) const {
    std::vector<int64_t> values(levels, fallback);
    if (!json_.contains(key)) return values;
    const Json& json = json_[key];
    if (json.is_array() && json.size() != levels) {
      return Error(key, absl::StrCat("a number or a list of ", levels,
                                     ", one for each of block_out_channels"));
    }
    for (size_t i = 0; i < levels; ++i) {
      DDPO_RETURN_IF_ERROR(ToInt(key, json.is_array() ? json[i] : json, 1, high, &values[i]));
    }
    return values;
  }

  // Block types of the levels, true where `with_attention` stands and false for `plain`.
  absl::StatusOr<std::vector<bool>> BlockTypes(const std::string& key, size_t levels,
                                               const std::string& with_attention,
                                               const std::string& plain,
                                               std::vector<bool> fallback) const {
    if (!json_.contains(key) && fallback.size() == levels) return fallback;
    const std::string expected =
        absl::StrCat("a list of ", levels, " of ", with_attention, " and ", plain);
    if (!json_.contains(key) || !json_[key].is_array() || json_[key].size() != levels) {
      return Error(key, expected);
    }
    std::vector<bool> attention;
    for (const Json& type : json_[key]) {
      if (type != with_attention && type != plain) return Error(key, expected);
      attention.push_back(type == with_attention);
    }
    return attention;
  }

  absl::StatusOr<std::vector<int64_t>> BlockOutChannels() const {
    const std::string key = "block_out_channels";
    if (!json_.contains(key)) return std::vector<int64_t>{320, 640, 1280, 1280};
    if (!json_[key].is_array() || json_[key].empty()) return Error(key, "a list of numbers");
    return IntByLevel(key, json_[key].size(), 0, kMaxSize);
  }

  absl::Status RefuseOnlyCrossAttention() const {
    const std::string key = "only_cross_attention";
    if (!json_.contains(key) || json_[key] == false) return absl::OkStatus();
    for (const Json& value : json_[key]) {
      if (value != false) return Error(key, "false");
    }
    return json_[key].is_array() ? absl::OkStatus() : Error(key, "false");
  }

  absl::StatusOr<bool> MidBlockAttention() const {
    const std::string key = "mid_block_type";
    if (!json_.contains(key) || json_[key] == "UNetMidBlock2DCrossAttn") return true;
    if (json_[key] == "UNetMidBlock2D") return false;
    return Error(key, "\"UNetMidBlock2DCrossAttn\" or \"UNetMidBlock2D\"");
  }

 private:
  absl::Status ToInt(const std::string& key, const Json& json, int64_t low, int64_t high,
                     int64_t* value) const {
    if (!json.is_number_integer() || json < low || json > high) {
      return Error(key, absl::StrCat("a whole number in ", low, " … ", high));
    }
    *value = json.get<int64_t>();
    return absl::OkStatus();
  }

  const std::string& path_;
  const Json& json_;
};

absl::Status ReadLevels(const ConfigReader& reader, UNetConfig* config) {
  DDPO_ASSIGN_OR_RETURN(const auto channels, reader.BlockOutChannels());
  const size_t levels = channels.size();
  DDPO_ASSIGN_OR_RETURN(const auto layers,
                        reader.IntByLevel("layers_per_block", levels, 2, kMaxLayers));
  // diffusers' naming: attention_head_dim is the number of heads
  // (https://github.com/huggingface/diffusers/issues/2011).
  DDPO_ASSIGN_OR_RETURN(const auto heads,
                        reader.IntByLevel("attention_head_dim", levels, 8, kMaxSize));
  DDPO_ASSIGN_OR_RETURN(const auto transformer_layers,
                        reader.IntByLevel("transformer_layers_per_block", levels, 1, kMaxLayers));
  DDPO_ASSIGN_OR_RETURN(const auto down,
                        reader.BlockTypes("down_block_types", levels, "CrossAttnDownBlock2D",
                                          "DownBlock2D", {true, true, true, false}));
  // From the lowest level up.
  DDPO_ASSIGN_OR_RETURN(
      const auto up, reader.BlockTypes("up_block_types", levels, "CrossAttnUpBlock2D", "UpBlock2D",
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
      return reader.Error("block_out_channels", absl::StrCat("multiples of norm_num_groups (",
                                                             config->norm_num_groups, ")"));
    }
    const bool has_attention = level.down_attention || level.up_attention ||
                               (i == levels - 1 && config->mid_block_attention);
    if (has_attention && level.channels % level.heads != 0) {
      return reader.Error(
          "attention_head_dim",
          absl::StrCat("a number of heads that divides the ", level.channels, " channels of level ",
                       i, " (diffusers' name for the number of heads)"));
    }
  }
  if (channels.front() % 2 != 0) {
    return reader.Error("block_out_channels", "an even first number");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<UNetConfig> ReadUNetConfig(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  const Json json = Json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a JSON object"));
  }

  const ConfigReader reader(path, json);
  UNetConfig config;
  if (!json.contains("_class_name")) {
    return reader.Error("_class_name", "\"UNet2DConditionModel\"");
  }
  DDPO_RETURN_IF_ERROR(reader.RefuseUnsupported());
  DDPO_RETURN_IF_ERROR(reader.RefuseOnlyCrossAttention());
  DDPO_RETURN_IF_ERROR(reader.Int("sample_size", 1, &config.sample_size));
  DDPO_RETURN_IF_ERROR(reader.Int("in_channels", 1, &config.in_channels));
  DDPO_RETURN_IF_ERROR(reader.Int("out_channels", 1, &config.out_channels));
  DDPO_RETURN_IF_ERROR(reader.Int("downsample_padding", 0, &config.downsample_padding));
  DDPO_RETURN_IF_ERROR(reader.Int("norm_num_groups", 1, &config.norm_num_groups));
  DDPO_RETURN_IF_ERROR(reader.Int("cross_attention_dim", 1, &config.cross_attention_dim));
  DDPO_RETURN_IF_ERROR(reader.Number("norm_eps", &config.norm_eps));
  DDPO_RETURN_IF_ERROR(reader.Number("mid_block_scale_factor", &config.mid_block_scale_factor));
  DDPO_RETURN_IF_ERROR(reader.Number("freq_shift", &config.freq_shift));
  DDPO_RETURN_IF_ERROR(reader.Bool("flip_sin_to_cos", &config.flip_sin_to_cos));
  DDPO_RETURN_IF_ERROR(reader.Bool("use_linear_projection", &config.use_linear_projection));
  DDPO_ASSIGN_OR_RETURN(config.mid_block_attention, reader.MidBlockAttention());
  DDPO_RETURN_IF_ERROR(ReadLevels(reader, &config));
  if (config.sample_size == 0) return reader.Error("sample_size", "a whole number");
  return config;
}

}  // namespace ddpo
