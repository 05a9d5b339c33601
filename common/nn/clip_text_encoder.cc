#include "common/nn/clip_text_encoder.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/nn/clip_layers.h"
#include "common/nn/json_config.h"
#include "common/nn/weights.h"

namespace ddpo {
namespace {

absl::StatusOr<ClipSizes> ReadSizes(const JsonConfig& config) {
  DDPO_RETURN_IF_ERROR(config.Require(
      "architectures", {R"(["CLIPTextModel"])", R"(["CLIPTextModelWithProjection"])"}));
  DDPO_RETURN_IF_ERROR(config.Require("model_type", {R"("clip_text_model")"}));
  return ReadClipSizes(config, {.hidden = 512, .intermediate = 2048, .layers = 12, .heads = 8});
}

}  // namespace

struct ClipTextEncoder::Impl {
  at::Tensor token_embedding;     // [V,D]
  at::Tensor position_embedding;  // [P,D]
  std::vector<ClipLayer> layers;
  LayerNorm final_layer_norm;
};

ClipTextEncoder::ClipTextEncoder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ClipTextEncoder::~ClipTextEncoder() = default;

absl::StatusOr<std::unique_ptr<ClipTextEncoder>> ClipTextEncoder::Load(
    const std::string& dir, const NetworkOptions& options) {
  DDPO_ASSIGN_OR_RETURN(const JsonConfig config,
                        JsonConfig::Read(absl::StrCat(dir, "/config.json")));
  DDPO_ASSIGN_OR_RETURN(const ClipSizes sizes, ReadSizes(config));
  DDPO_ASSIGN_OR_RETURN(const int64_t vocabulary, config.Int("vocab_size", 49408));
  DDPO_ASSIGN_OR_RETURN(const int64_t positions, config.Int("max_position_embeddings", 77));
  DDPO_ASSIGN_OR_RETURN(WeightLoader loader, WeightLoader::Open(dir, options));
  // transformers writes the prefix; some converted folders lack it.
  const std::string prefix = loader.ContainsPrefix("text_model.") ? "text_model." : "";
  const auto key = [&](const char* name) { return absl::StrCat(prefix, name); };

  auto impl = std::make_unique<Impl>();
  DDPO_ASSIGN_OR_RETURN(impl->token_embedding, loader.Take(key("embeddings.token_embedding.weight"),
                                                           {vocabulary, sizes.hidden}));
  DDPO_ASSIGN_OR_RETURN(
      impl->position_embedding,
      loader.Take(key("embeddings.position_embedding.weight"), {positions, sizes.hidden}));
  for (int64_t i = 0; i < sizes.layers; ++i) {
    DDPO_ASSIGN_OR_RETURN(
        impl->layers.emplace_back(),
        ClipLayer::Load(loader, absl::StrCat(prefix, "encoder.layers.", i), sizes));
  }
  DDPO_ASSIGN_OR_RETURN(
      impl->final_layer_norm,
      LayerNorm::Load(loader, key("final_layer_norm"), sizes.hidden, sizes.layer_norm_eps));
  loader.Ignore(key("embeddings.position_ids"));
  loader.Ignore("text_projection.");
  DDPO_RETURN_IF_ERROR(loader.CheckAllTaken());
  return std::unique_ptr<ClipTextEncoder>(new ClipTextEncoder(std::move(impl)));
}

int64_t ClipTextEncoder::vocabulary() const { return impl_->token_embedding.size(0); }
int64_t ClipTextEncoder::positions() const { return impl_->position_embedding.size(0); }

at::Tensor ClipTextEncoder::Forward(const at::Tensor& input_ids) const {
  const int64_t length = input_ids.size(1);
  TORCH_CHECK(length <= impl_->position_embedding.size(0), "a prompt of ", length,
              " tokens; the text encoder takes ", impl_->position_embedding.size(0));
  at::Tensor hidden =
      at::embedding(impl_->token_embedding, input_ids.to(impl_->token_embedding.device())) +
      impl_->position_embedding.narrow(0, 0, length);
  for (const ClipLayer& layer : impl_->layers) hidden = layer.Forward(hidden, /*causal=*/true);
  return impl_->final_layer_norm.Forward(hidden).to(at::kFloat);
}

}  // namespace ddpo
