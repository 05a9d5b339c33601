#include "common/nn/unet.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/nn/blocks.h"
#include "common/nn/unet_blocks.h"
#include "common/nn/unet_config.h"
#include "common/nn/weights.h"

namespace ddpo {
namespace {

// Metadata that tells a whole UNet from a LoRA.
constexpr char kPolicyKey[] = "ddpo_policy";
constexpr char kUNetPolicy[] = "unet";

// The frequencies of diffusers' Timesteps: exp(−ln 10000 · i / (half − freq_shift)).
at::Tensor TimestepFrequencies(const UNetConfig& config) {
  const int64_t half = config.levels.front().channels / 2;
  const at::Tensor exponent = -std::log(10000.0) * at::arange(half, at::TensorOptions(at::kFloat));
  return at::exp(exponent / (static_cast<double>(half) - config.freq_shift));
}

}  // namespace

class UNet::TextKeyValues {
 public:
  explicit TextKeyValues(std::vector<KeyValue> layers) : layers_(std::move(layers)) {}
  const std::vector<KeyValue>& layers() const { return layers_; }

 private:
  std::vector<KeyValue> layers_;  // for each transformer block, in running order
};

struct UNet::Impl {
  UNetConfig config;
  NetworkOptions options;
  at::Tensor timestep_frequencies;  // [C/2] float32
  Linear time_embedding1, time_embedding2;
  Conv2d conv_in, conv_out;
  GroupNorm norm_out;
  std::vector<UNetBlock> down, up;  // in running order
  std::optional<UNetBlock> mid;
  std::vector<LoraTarget> lora_targets;
  std::map<std::string, WeightLoader::Place> places;  // of every weight
  std::vector<at::Tensor> trained;                    // leaves of autograd; empty while frozen
  bool gradient_checkpointing = false;

  static absl::StatusOr<std::unique_ptr<Impl>> Create(const UNetConfig& config,
                                                      const NetworkOptions& options,
                                                      WeightLoader loader);
  absl::Status Load(WeightLoader& loader);
  void CollectLoraTargets();

  // Calls `visit` for every transformer block in running order.
  template <typename Visit>
  void ForEachTransformer(Visit visit) {
    const auto visit_block = [&](UNetBlock& block) {
      for (Transformer2D& transformer : block.transformers()) {
        for (TransformerBlock& layer : transformer.blocks()) visit(layer);
      }
    };
    for (UNetBlock& block : down) visit_block(block);
    visit_block(*mid);
    for (UNetBlock& block : up) visit_block(block);
  }
  template <typename Visit>
  void ForEachProjection(Visit visit) {
    ForEachTransformer([&](TransformerBlock& layer) {
      for (LoraProjection* projection : layer.self_attention().projections()) visit(*projection);
      for (LoraProjection* projection : layer.text_attention().projections()) visit(*projection);
    });
  }

  ForwardLora ViewLora(const LoraWeights* lora) const;
  at::Tensor EmbedTimesteps(const at::Tensor& timesteps) const;
};

absl::Status UNet::Impl::Load(WeightLoader& loader) {
  const int64_t first = config.levels.front().channels;
  const int64_t embedding = config.time_embedding_dim();
  timestep_frequencies = TimestepFrequencies(config).to(options.device);
  DDPO_ASSIGN_OR_RETURN(time_embedding1,
                        Linear::Load(loader, "time_embedding.linear_1", first, embedding));
  DDPO_ASSIGN_OR_RETURN(time_embedding2,
                        Linear::Load(loader, "time_embedding.linear_2", embedding, embedding));
  DDPO_ASSIGN_OR_RETURN(conv_in, Conv2d::Load(loader, "conv_in", config.in_channels, first, 3));
  for (size_t level = 0; level < config.levels.size(); ++level) {
    DDPO_ASSIGN_OR_RETURN(down.emplace_back(), UNetBlock::LoadDown(loader, config, level));
  }
  DDPO_ASSIGN_OR_RETURN(mid, UNetBlock::LoadMid(loader, config));
  for (size_t level = config.levels.size(); level-- > 0;) {
    DDPO_ASSIGN_OR_RETURN(up.emplace_back(), UNetBlock::LoadUp(loader, config, level));
  }
  DDPO_ASSIGN_OR_RETURN(norm_out, GroupNorm::Load(loader, "conv_norm_out", first,
                                                  config.norm_num_groups, config.norm_eps));
  DDPO_ASSIGN_OR_RETURN(conv_out, Conv2d::Load(loader, "conv_out", first, config.out_channels, 3));
  return loader.CheckAllTaken();
}

void UNet::Impl::CollectLoraTargets() {
  ForEachProjection([&](const LoraProjection& projection) {
    for (const std::string& name : projection.layer_names()) {
      lora_targets.push_back({.prefix = absl::StrCat("unet.", name),
                              .in_features = projection.in_features(),
                              .out_features = projection.out_features()});
    }
  });
  std::sort(lora_targets.begin(), lora_targets.end(),
            [](const LoraTarget& a, const LoraTarget& b) { return a.prefix < b.prefix; });
  ForEachProjection([&](LoraProjection& projection) {
    std::vector<int64_t> indices;
    for (const std::string& name : projection.layer_names()) {
      const auto found =
          std::lower_bound(lora_targets.begin(), lora_targets.end(), absl::StrCat("unet.", name),
                           [](const LoraTarget& a, const std::string& b) { return a.prefix < b; });
      indices.push_back(found - lora_targets.begin());
    }
    projection.set_lora_indices(std::move(indices));
  });
}

// Relies on both maps' order: a LoRA's keys are those of lora_targets, A before B.
ForwardLora UNet::Impl::ViewLora(const LoraWeights* lora) const {
  ForwardLora view;
  if (lora == nullptr) return view;
  TORCH_CHECK(lora->tensors.size() == 2 * lora_targets.size(), "LoRA has ", lora->tensors.size(),
              " tensors, this UNet takes ", 2 * lora_targets.size());
  view.scale = lora->scale();
  auto tensor = lora->tensors.begin();
  for (const LoraTarget& target : lora_targets) {
    TORCH_CHECK(tensor->first.starts_with(target.prefix), "LoRA has ", tensor->first,
                " where this UNet has ", target.prefix);
    const at::Tensor& a = (tensor++)->second;
    const at::Tensor& b = (tensor++)->second;
    TORCH_CHECK(a.size(1) == target.in_features && b.size(0) == target.out_features, "LoRA for ",
                target.prefix, " has shapes ", a.sizes(), " and ", b.sizes(), ", expected [rank,",
                target.in_features, "] and [", target.out_features, ",rank]");
    view.pairs.push_back({a, b});
  }
  return view;
}

// get_timestep_embedding and TimestepEmbedding of diffusers, with the SiLU that every ResNet begins
// with: timesteps [B] -> [B,E].
at::Tensor UNet::Impl::EmbedTimesteps(const at::Tensor& timesteps) const {
  const at::Tensor angles =
      timesteps.to(options.device, at::kFloat).unsqueeze(1) * timestep_frequencies.unsqueeze(0);
  const at::Tensor sinusoids = config.flip_sin_to_cos ? at::cat({angles.cos(), angles.sin()}, 1)
                                                      : at::cat({angles.sin(), angles.cos()}, 1);
  const at::Tensor inner = at::silu(time_embedding1.Forward(sinusoids.to(options.dtype)));
  return at::silu(time_embedding2.Forward(inner));
}

UNet::UNet(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
UNet::~UNet() = default;

absl::StatusOr<std::unique_ptr<UNet::Impl>> UNet::Impl::Create(const UNetConfig& config,
                                                               const NetworkOptions& options,
                                                               WeightLoader loader) {
  auto impl = std::make_unique<Impl>();
  impl->config = config;
  impl->options = options;
  loader.RecordPlaces();
  DDPO_RETURN_IF_ERROR(impl->Load(loader));
  impl->places = loader.places();
  impl->CollectLoraTargets();
  return impl;
}

absl::StatusOr<std::unique_ptr<UNet>> UNet::Load(const std::string& dir,
                                                 const NetworkOptions& options) {
  DDPO_ASSIGN_OR_RETURN(const UNetConfig config, ReadUNetConfig(absl::StrCat(dir, "/config.json")));
  DDPO_ASSIGN_OR_RETURN(WeightLoader loader, WeightLoader::Open(dir, options));
  DDPO_ASSIGN_OR_RETURN(std::unique_ptr<Impl> impl,
                        Impl::Create(config, options, std::move(loader)));
  return std::unique_ptr<UNet>(new UNet(std::move(impl)));
}

absl::Status UNet::SetWeights(NamedTensors weights) {
  DDPO_ASSIGN_OR_RETURN(
      std::unique_ptr<Impl> impl,
      Impl::Create(impl_->config, impl_->options,
                   WeightLoader::FromTensors("UNet weights", std::move(weights), impl_->options)));
  impl->gradient_checkpointing = impl_->gradient_checkpointing;
  impl_ = std::move(impl);
  return absl::OkStatus();
}

NamedTensors UNet::MakeTrainable() {
  NamedTensors leaves;
  for (auto& [key, place] : impl_->places) {
    if (place.first_row != 0) continue;
    place.tensor.requires_grad_(true);
    impl_->trained.push_back(place.tensor);
    leaves[key] = place.tensor;
  }
  return leaves;
}

NamedTensors UNet::Weights(const NamedTensors& trainable) const {
  std::map<const at::TensorImpl*, std::string> names;
  for (const auto& [key, place] : impl_->places) {
    if (place.first_row == 0) names[place.tensor.unsafeGetTensorImpl()] = key;
  }
  NamedTensors weights;
  for (const auto& [key, place] : impl_->places) {
    const at::Tensor& whole = trainable.at(names.at(place.tensor.unsafeGetTensorImpl()));
    weights[key] =
        whole.detach().narrow(0, place.first_row, place.shape[0]).reshape(place.shape).contiguous();
  }
  return weights;
}

void UNet::set_gradient_checkpointing(bool on) { impl_->gradient_checkpointing = on; }

std::shared_ptr<const UNet::TextKeyValues> UNet::PrepareText(
    const at::Tensor& encoder_hidden_states, const LoraWeights* lora) const {
  TORCH_CHECK(encoder_hidden_states.dim() == 3 &&
                  encoder_hidden_states.size(2) == impl_->config.cross_attention_dim,
              "encoder_hidden_states has shape ", encoder_hidden_states.sizes(), ", expected [B,L,",
              impl_->config.cross_attention_dim, "]");
  const ForwardLora view = impl_->ViewLora(lora);
  const TokenMatrix text{encoder_hidden_states.to(impl_->options.device, impl_->options.dtype)
                             .reshape({-1, encoder_hidden_states.size(2)}),
                         encoder_hidden_states.size(0)};
  std::vector<KeyValue> layers;
  impl_->ForEachTransformer([&](const TransformerBlock& layer) {
    layers.push_back(layer.text_attention().ContextKeyValue(text, view));
  });
  return std::make_shared<const TextKeyValues>(std::move(layers));
}

at::Tensor UNet::Forward(const at::Tensor& sample, const at::Tensor& timesteps,
                         const at::Tensor& encoder_hidden_states, const LoraWeights* lora) const {
  return Forward(sample, timesteps, *PrepareText(encoder_hidden_states, lora), lora);
}

at::Tensor UNet::Forward(const at::Tensor& sample, const at::Tensor& timesteps,
                         const TextKeyValues& text, const LoraWeights* lora) const {
  const Impl& net = *impl_;
  TORCH_CHECK(sample.dim() == 4 && sample.size(1) == net.config.in_channels, "sample has shape ",
              sample.sizes(), ", expected [B,", net.config.in_channels, ",h,w]");
  TORCH_CHECK(timesteps.dim() == 1 && timesteps.size(0) == sample.size(0), "timesteps has shape ",
              timesteps.sizes(), ", expected [", sample.size(0), "]");
  TORCH_CHECK(text.layers().empty() || text.layers().front().batch == sample.size(0),
              "encoder_hidden_states has ", text.layers().front().batch, " rows, sample has ",
              sample.size(0));
  UNetContext context{.time_embedding = net.EmbedTimesteps(timesteps),
                      .text = text.layers().data(),
                      .lora = std::make_shared<const ForwardLora>(net.ViewLora(lora)),
                      .recompute = net.gradient_checkpointing && at::GradMode::is_enabled(),
                      .weights = net.trained};

  at::Tensor x =
      net.conv_in.Forward(sample.to(at::TensorOptions(net.options.device).dtype(net.options.dtype),
                                    false, false, at::MemoryFormat::ChannelsLast));
  std::vector<at::Tensor> skips = {x};
  for (const UNetBlock& block : net.down) x = block.ForwardDown(x, context, skips);
  x = net.mid->ForwardMid(x, context);
  for (const UNetBlock& block : net.up) x = block.ForwardUp(x, context, skips);
  x = net.conv_out.Forward(net.norm_out.ForwardSilu(x));
  return x.to(at::TensorOptions(at::kFloat), false, false, at::MemoryFormat::Contiguous);
}

absl::Status UNet::MergeLora(const LoraWeights& lora) {
  DDPO_RETURN_IF_ERROR(LoraFromTensors(*this, lora.tensors, lora.alpha).status());
  const ForwardLora view = impl_->ViewLora(&lora);
  impl_->ForEachProjection([&](LoraProjection& projection) { projection.Merge(view); });
  return absl::OkStatus();
}

void UNet::UnmergeLora() {
  impl_->ForEachProjection([](LoraProjection& projection) { projection.Unmerge(); });
}

const std::vector<UNet::LoraTarget>& UNet::lora_targets() const { return impl_->lora_targets; }
int64_t UNet::in_channels() const { return impl_->config.in_channels; }
int64_t UNet::sample_size() const { return impl_->config.sample_size; }
int64_t UNet::cross_attention_dim() const { return impl_->config.cross_attention_dim; }
at::Device UNet::device() const { return impl_->options.device; }

std::string SerializeUNetWeights(const NamedTensors& weights) {
  return SerializeSafetensors(weights, {{"format", "pt"}, {kPolicyKey, kUNetPolicy}});
}

bool IsUNetWeights(const SafetensorsContents& contents) {
  const auto found = contents.metadata.find(kPolicyKey);
  return (found != contents.metadata.end() && found->second == kUNetPolicy) ||
         contents.tensors.contains("conv_in.weight");
}

}  // namespace ddpo
