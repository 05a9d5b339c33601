#include "common/nn/vae.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/nn/blocks.h"
#include "common/nn/json_config.h"
#include "common/nn/weights.h"

namespace ddpo {
namespace {

constexpr double kNormEps = 1e-6;  // of diffusers' VAE blocks

struct VaeConfig {
  int64_t in_channels = 3;
  int64_t out_channels = 3;
  int64_t latent_channels = 4;
  int64_t layers_per_block = 1;
  int64_t norm_num_groups = 32;
  std::vector<int64_t> channels;  // of the levels, from the image down
  bool quant_conv = true;
  bool post_quant_conv = true;
  bool mid_attention = true;
  double scaling_factor = 0.18215;
};

// ["DownEncoderBlock2D", …] of as many levels.
std::string RepeatedJson(const char* type, size_t levels) {
  std::string text = "[";
  for (size_t i = 0; i < levels; ++i) absl::StrAppend(&text, i > 0 ? "," : "", "\"", type, "\"");
  return text + "]";
}

absl::StatusOr<VaeConfig> ReadVaeConfig(const JsonConfig& json) {
  VaeConfig config;
  DDPO_RETURN_IF_ERROR(json.RequirePresent("_class_name", {R"("AutoencoderKL")"}));
  DDPO_RETURN_IF_ERROR(json.Require("act_fn", {R"("silu")"}));
  for (const char* key : {"shift_factor", "latents_mean", "latents_std"}) {
    DDPO_RETURN_IF_ERROR(json.Require(key, {}));
  }
  DDPO_ASSIGN_OR_RETURN(config.in_channels, json.Int("in_channels", 3));
  DDPO_ASSIGN_OR_RETURN(config.out_channels, json.Int("out_channels", 3));
  DDPO_ASSIGN_OR_RETURN(config.latent_channels, json.Int("latent_channels", 4));
  DDPO_ASSIGN_OR_RETURN(config.layers_per_block, json.Int("layers_per_block", 1, 1, 64));
  DDPO_ASSIGN_OR_RETURN(config.norm_num_groups, json.Int("norm_num_groups", 32));
  DDPO_ASSIGN_OR_RETURN(config.channels, json.IntList("block_out_channels", {64}));
  DDPO_ASSIGN_OR_RETURN(config.quant_conv, json.Bool("use_quant_conv", true));
  DDPO_ASSIGN_OR_RETURN(config.post_quant_conv, json.Bool("use_post_quant_conv", true));
  DDPO_ASSIGN_OR_RETURN(config.mid_attention, json.Bool("mid_block_add_attention", true));
  DDPO_ASSIGN_OR_RETURN(config.scaling_factor, json.Number("scaling_factor", 0.18215));
  const size_t levels = config.channels.size();
  DDPO_RETURN_IF_ERROR(
      json.Require("down_block_types", {RepeatedJson("DownEncoderBlock2D", levels)}));
  DDPO_RETURN_IF_ERROR(json.Require("up_block_types", {RepeatedJson("UpDecoderBlock2D", levels)}));
  for (const int64_t channels : config.channels) {
    if (channels % config.norm_num_groups != 0) {
      return json.Error("block_out_channels", absl::StrCat("multiples of norm_num_groups (",
                                                           config.norm_num_groups, ")"));
    }
  }
  return config;
}

absl::StatusOr<ResnetBlock2D> LoadResnet(WeightLoader& loader, const std::string& prefix,
                                         const VaeConfig& config, int64_t in, int64_t out) {
  return ResnetBlock2D::Load(loader, prefix,
                             {.in_channels = in,
                              .out_channels = out,
                              .norm_num_groups = config.norm_num_groups,
                              .norm_eps = kNormEps});
}

// One head over all positions, with a residual connection.
class SpatialAttention {
 public:
  static absl::StatusOr<SpatialAttention> Load(WeightLoader& loader, const std::string& prefix,
                                               const VaeConfig& config, int64_t channels) {
    // diffusers renamed the projections; older folders keep the first names.
    const bool old_names = loader.Contains(absl::StrCat(prefix, ".query.weight"));
    const auto load = [&](const char* name, const char* old_name) {
      return Linear::Load(loader, absl::StrCat(prefix, ".", old_names ? old_name : name), channels,
                          channels);
    };
    SpatialAttention attention;
    DDPO_ASSIGN_OR_RETURN(attention.norm_,
                          GroupNorm::Load(loader, absl::StrCat(prefix, ".group_norm"), channels,
                                          config.norm_num_groups, kNormEps));
    DDPO_ASSIGN_OR_RETURN(attention.query_, load("to_q", "query"));
    DDPO_ASSIGN_OR_RETURN(attention.key_, load("to_k", "key"));
    DDPO_ASSIGN_OR_RETURN(attention.value_, load("to_v", "value"));
    DDPO_ASSIGN_OR_RETURN(attention.output_, load("to_out.0", "proj_attn"));
    return attention;
  }

  at::Tensor Forward(const at::Tensor& x) const {
    const at::Tensor tokens = norm_.Forward(x).flatten(2).transpose(1, 2).unsqueeze(1);
    const at::Tensor attended = at::scaled_dot_product_attention(
        query_.Forward(tokens), key_.Forward(tokens), value_.Forward(tokens));
    return x + output_.Forward(attended).squeeze(1).transpose(1, 2).reshape(x.sizes());
  }

 private:
  GroupNorm norm_;
  Linear query_, key_, value_, output_;
};

struct MidBlock {
  ResnetBlock2D resnet1, resnet2;
  std::optional<SpatialAttention> attention;

  absl::Status Load(WeightLoader& loader, const std::string& prefix, const VaeConfig& config,
                    int64_t channels) {
    DDPO_ASSIGN_OR_RETURN(resnet1, LoadResnet(loader, absl::StrCat(prefix, ".resnets.0"), config,
                                              channels, channels));
    if (config.mid_attention) {
      DDPO_ASSIGN_OR_RETURN(
          attention,
          SpatialAttention::Load(loader, absl::StrCat(prefix, ".attentions.0"), config, channels));
    }
    DDPO_ASSIGN_OR_RETURN(resnet2, LoadResnet(loader, absl::StrCat(prefix, ".resnets.1"), config,
                                              channels, channels));
    return absl::OkStatus();
  }

  at::Tensor Forward(const at::Tensor& x) const {
    at::Tensor hidden = resnet1.Forward(x);
    if (attention.has_value()) hidden = attention->Forward(hidden);
    return resnet2.Forward(hidden);
  }
};

struct Encoder {
  struct Level {
    std::vector<ResnetBlock2D> resnets;
    std::optional<Downsample2D> downsample;
  };
  Conv2d conv_in, conv_out;
  std::vector<Level> levels;
  MidBlock mid;
  GroupNorm norm_out;

  absl::Status Load(WeightLoader& loader, const VaeConfig& config) {
    const auto& channels = config.channels;
    DDPO_ASSIGN_OR_RETURN(
        conv_in, Conv2d::Load(loader, "encoder.conv_in", config.in_channels, channels.front(), 3));
    for (size_t i = 0; i < channels.size(); ++i) {
      const std::string prefix = absl::StrCat("encoder.down_blocks.", i);
      Level& level = levels.emplace_back();
      for (int64_t j = 0; j < config.layers_per_block; ++j) {
        const int64_t in = j > 0 || i == 0 ? channels[i] : channels[i - 1];
        DDPO_ASSIGN_OR_RETURN(
            level.resnets.emplace_back(),
            LoadResnet(loader, absl::StrCat(prefix, ".resnets.", j), config, in, channels[i]));
      }
      if (i + 1 < channels.size()) {
        DDPO_ASSIGN_OR_RETURN(level.downsample,
                              Downsample2D::Load(loader, absl::StrCat(prefix, ".downsamplers.0"),
                                                 channels[i], /*padding=*/0));
      }
    }
    DDPO_RETURN_IF_ERROR(mid.Load(loader, "encoder.mid_block", config, channels.back()));
    DDPO_ASSIGN_OR_RETURN(norm_out,
                          GroupNorm::Load(loader, "encoder.conv_norm_out", channels.back(),
                                          config.norm_num_groups, kNormEps));
    DDPO_ASSIGN_OR_RETURN(conv_out, Conv2d::Load(loader, "encoder.conv_out", channels.back(),
                                                 2 * config.latent_channels, 3));
    return absl::OkStatus();
  }

  at::Tensor Forward(const at::Tensor& image) const {
    at::Tensor x = conv_in.Forward(image);
    for (const Level& level : levels) {
      for (const ResnetBlock2D& resnet : level.resnets) x = resnet.Forward(x);
      if (level.downsample.has_value()) x = level.downsample->Forward(x);
    }
    return conv_out.Forward(at::silu(norm_out.Forward(mid.Forward(x))));
  }
};

struct Decoder {
  struct Level {
    std::vector<ResnetBlock2D> resnets;
    std::optional<Upsample2D> upsample;
  };
  Conv2d conv_in, conv_out;
  MidBlock mid;
  std::vector<Level> levels;  // from the latents up
  GroupNorm norm_out;

  absl::Status Load(WeightLoader& loader, const VaeConfig& config) {
    const std::vector<int64_t> channels(config.channels.rbegin(), config.channels.rend());
    DDPO_ASSIGN_OR_RETURN(conv_in, Conv2d::Load(loader, "decoder.conv_in", config.latent_channels,
                                                channels.front(), 3));
    DDPO_RETURN_IF_ERROR(mid.Load(loader, "decoder.mid_block", config, channels.front()));
    for (size_t i = 0; i < channels.size(); ++i) {
      const std::string prefix = absl::StrCat("decoder.up_blocks.", i);
      Level& level = levels.emplace_back();
      for (int64_t j = 0; j <= config.layers_per_block; ++j) {
        const int64_t in = j > 0 || i == 0 ? channels[i] : channels[i - 1];
        DDPO_ASSIGN_OR_RETURN(
            level.resnets.emplace_back(),
            LoadResnet(loader, absl::StrCat(prefix, ".resnets.", j), config, in, channels[i]));
      }
      if (i + 1 < channels.size()) {
        DDPO_ASSIGN_OR_RETURN(
            level.upsample,
            Upsample2D::Load(loader, absl::StrCat(prefix, ".upsamplers.0"), channels[i]));
      }
    }
    DDPO_ASSIGN_OR_RETURN(norm_out,
                          GroupNorm::Load(loader, "decoder.conv_norm_out", channels.back(),
                                          config.norm_num_groups, kNormEps));
    DDPO_ASSIGN_OR_RETURN(conv_out, Conv2d::Load(loader, "decoder.conv_out", channels.back(),
                                                 config.out_channels, 3));
    return absl::OkStatus();
  }

  at::Tensor Forward(const at::Tensor& latents) const {
    at::Tensor x = mid.Forward(conv_in.Forward(latents));
    for (const Level& level : levels) {
      for (const ResnetBlock2D& resnet : level.resnets) x = resnet.Forward(x);
      if (level.upsample.has_value()) x = level.upsample->Forward(x);
    }
    return conv_out.Forward(at::silu(norm_out.Forward(x)));
  }
};

}  // namespace

struct Vae::Impl {
  NetworkOptions options;
  VaeConfig config;
  Encoder encoder;
  Decoder decoder;
  std::optional<Conv2d> quant_conv, post_quant_conv;
};

Vae::Vae(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Vae::~Vae() = default;

absl::StatusOr<std::unique_ptr<Vae>> Vae::Load(const std::string& dir,
                                               const NetworkOptions& options) {
  DDPO_ASSIGN_OR_RETURN(const JsonConfig json, JsonConfig::Read(absl::StrCat(dir, "/config.json")));
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  DDPO_ASSIGN_OR_RETURN(impl->config, ReadVaeConfig(json));
  const int64_t latent = impl->config.latent_channels;
  DDPO_ASSIGN_OR_RETURN(WeightLoader loader, WeightLoader::Open(dir, options));
  DDPO_RETURN_IF_ERROR(impl->encoder.Load(loader, impl->config));
  DDPO_RETURN_IF_ERROR(impl->decoder.Load(loader, impl->config));
  if (impl->config.quant_conv) {
    DDPO_ASSIGN_OR_RETURN(impl->quant_conv,
                          Conv2d::Load(loader, "quant_conv", 2 * latent, 2 * latent, 1));
  }
  if (impl->config.post_quant_conv) {
    DDPO_ASSIGN_OR_RETURN(impl->post_quant_conv,
                          Conv2d::Load(loader, "post_quant_conv", latent, latent, 1));
  }
  DDPO_RETURN_IF_ERROR(loader.CheckAllTaken());
  return std::unique_ptr<Vae>(new Vae(std::move(impl)));
}

at::Tensor Vae::Decode(const at::Tensor& latents) const {
  at::Tensor x = latents.to(impl_->options.device, impl_->options.dtype);
  if (impl_->post_quant_conv.has_value()) x = impl_->post_quant_conv->Forward(x);
  return impl_->decoder.Forward(x).to(at::kFloat);
}

Vae::Posterior Vae::Encode(const at::Tensor& image) const {
  at::Tensor moments =
      impl_->encoder.Forward(image.to(impl_->options.device, impl_->options.dtype));
  if (impl_->quant_conv.has_value()) moments = impl_->quant_conv->Forward(moments);
  const std::vector<at::Tensor> parts = moments.to(at::kFloat).chunk(2, 1);
  return {parts[0], parts[1].clamp(-30.0, 20.0)};
}

double Vae::scaling_factor() const { return impl_->config.scaling_factor; }
int64_t Vae::latent_channels() const { return impl_->config.latent_channels; }
int64_t Vae::upscale() const { return int64_t{1} << (impl_->config.channels.size() - 1); }

}  // namespace ddpo
