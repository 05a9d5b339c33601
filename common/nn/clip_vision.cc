#include "common/nn/clip_vision.h"

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

constexpr int64_t kChannels = 3;

}  // namespace

absl::StatusOr<ClipVisionTower> ClipVisionTower::Load(WeightLoader& loader,
                                                      const std::string& prefix,
                                                      const JsonConfig& vision_config) {
  const auto key = [&](const char* name) { return absl::StrCat(prefix, name); };
  ClipVisionTower tower;
  DDPO_RETURN_IF_ERROR(vision_config.Require("model_type", {R"("clip_vision_model")"}));
  DDPO_RETURN_IF_ERROR(vision_config.Require("num_channels", {"3"}));
  DDPO_ASSIGN_OR_RETURN(
      tower.sizes_,
      ReadClipSizes(vision_config,
                    {.hidden = 768, .intermediate = 3072, .layers = 12, .heads = 12}));
  DDPO_ASSIGN_OR_RETURN(tower.image_size_, vision_config.Int("image_size", 224, 1, 1 << 14));
  DDPO_ASSIGN_OR_RETURN(tower.patch_size_,
                        vision_config.Int("patch_size", 32, 1, tower.image_size_));
  const int64_t hidden = tower.sizes_.hidden;
  const int64_t patch = tower.patch_size_;
  const int64_t grid = tower.image_size_ / patch;
  DDPO_ASSIGN_OR_RETURN(tower.class_embedding_,
                        loader.Take(key("embeddings.class_embedding"), {hidden}));
  DDPO_ASSIGN_OR_RETURN(
      const at::Tensor patch_weight,
      loader.Take(key("embeddings.patch_embedding.weight"), {hidden, kChannels, patch, patch}));
  tower.patch_weight_ = patch_weight.reshape({hidden, -1});
  DDPO_ASSIGN_OR_RETURN(
      tower.position_embedding_,
      loader.Take(key("embeddings.position_embedding.weight"), {1 + grid * grid, hidden}));
  loader.Ignore(key("embeddings.position_ids"));
  // The missing `e` is transformers' own spelling.
  DDPO_ASSIGN_OR_RETURN(tower.pre_layer_norm_, LayerNorm::Load(loader, key("pre_layrnorm"), hidden,
                                                               tower.sizes_.layer_norm_eps));
  for (int64_t i = 0; i < tower.sizes_.layers; ++i) {
    DDPO_ASSIGN_OR_RETURN(
        tower.layers_.emplace_back(),
        ClipLayer::Load(loader, absl::StrCat(prefix, "encoder.layers.", i), tower.sizes_));
  }
  if (loader.ContainsPrefix(key("post_layernorm."))) {
    DDPO_ASSIGN_OR_RETURN(
        tower.post_layer_norm_,
        LayerNorm::Load(loader, key("post_layernorm"), hidden, tower.sizes_.layer_norm_eps));
  }
  return tower;
}

at::Tensor ClipVisionTower::Embed(const at::Tensor& pixels) const {
  TORCH_CHECK(pixels.dim() == 4 && pixels.size(1) == kChannels && pixels.size(2) == image_size_ &&
                  pixels.size(3) == image_size_,
              "pixels of shape ", pixels.sizes(), "; the image tower takes [B,3,", image_size_, ",",
              image_size_, "]");
  const int64_t batch = pixels.size(0), grid = image_size_ / patch_size_;
  // A convolution whose stride is its kernel's size is a product of patches; as with the
  // convolution, pixels beyond the last whole patch do not count.
  const at::Tensor patches = pixels.to(patch_weight_.options())
                                 .narrow(2, 0, grid * patch_size_)
                                 .narrow(3, 0, grid * patch_size_)
                                 .reshape({batch, kChannels, grid, patch_size_, grid, patch_size_})
                                 .permute({0, 2, 4, 1, 3, 5})
                                 .reshape({batch, grid * grid, -1});
  const at::Tensor tokens = at::cat(
      {class_embedding_.expand({batch, 1, sizes_.hidden}), at::linear(patches, patch_weight_)},
      /*dim=*/1);
  return pre_layer_norm_.Forward(tokens + position_embedding_);
}

at::Tensor ClipVisionTower::HiddenState(const at::Tensor& pixels, int64_t layer) const {
  const int64_t count = layer < 0 ? layer + layers() + 1 : layer;
  TORCH_CHECK(count >= 0 && count <= layers(), "hidden state ", layer,
              " of an image tower that has ", layers(), " layers");
  at::Tensor hidden = Embed(pixels);
  for (int64_t i = 0; i < count; ++i) hidden = layers_[i].Forward(hidden, /*causal=*/false);
  return hidden;
}

at::Tensor ClipVisionTower::Pooled(const at::Tensor& pixels) const {
  TORCH_CHECK(has_pooling(), "the image tower was loaded without its post_layernorm");
  return post_layer_norm_->Forward(HiddenState(pixels, layers()).select(1, 0));
}

}  // namespace ddpo
