#include "common/nn/clip_image_encoder.h"

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/nn/json_config.h"
#include "common/nn/weights.h"

namespace ddpo {

absl::StatusOr<ClipImageEncoder> ClipImageEncoder::Load(const std::string& dir,
                                                        const NetworkOptions& options) {
  DDPO_ASSIGN_OR_RETURN(const JsonConfig config, JsonConfig::Read(JoinPath(dir, "config.json")));
  DDPO_RETURN_IF_ERROR(
      config.RequirePresent("model_type", {R"("clip")", R"("clip_vision_model")"}));
  DDPO_ASSIGN_OR_RETURN(const std::string model_type, config.String("model_type", ""));
  // A CLIPModel's file has a configuration for each tower.
  DDPO_ASSIGN_OR_RETURN(const JsonConfig vision_config, config.Object("vision_config"));
  DDPO_ASSIGN_OR_RETURN(ClipImageProcessor processor, ClipImageProcessor::Load(dir));
  DDPO_ASSIGN_OR_RETURN(WeightLoader loader, WeightLoader::Open(dir, options));
  DDPO_ASSIGN_OR_RETURN(ClipVisionTower tower,
                        ClipVisionTower::Load(loader, "vision_model.",
                                              model_type == "clip" ? vision_config : config));
  if (!tower.has_pooling()) {
    // Says which tensor is missing, and of which file.
    DDPO_RETURN_IF_ERROR(
        loader.Take("vision_model.post_layernorm.weight", {tower.hidden()}).status());
  }
  const int64_t size = tower.image_size();
  if (processor.output_width() != size || processor.output_height() != size) {
    return absl::InvalidArgumentError(absl::StrCat(
        JoinPath(dir, "preprocessor_config.json"), ": makes images of ", processor.output_width(),
        " × ", processor.output_height(), "; the image tower takes ", size, " × ", size));
  }
  ClipImageEncoder encoder(std::move(processor), std::move(tower));
  DDPO_ASSIGN_OR_RETURN(encoder.projection_dim_, config.Int("projection_dim", 512));
  DDPO_ASSIGN_OR_RETURN(encoder.projection_,
                        Linear::Load(loader, "visual_projection", encoder.tower_.hidden(),
                                     encoder.projection_dim_, /*bias=*/false));
  for (const char* unused : {"text_model.", "text_projection.", "logit_scale"}) {
    loader.Ignore(unused);
  }
  DDPO_RETURN_IF_ERROR(loader.CheckAllTaken());
  return encoder;
}

at::Tensor ClipImageEncoder::Encode(const at::Tensor& pixels) const {
  return projection_.Forward(tower_.Pooled(pixels)).to(at::kFloat);
}

}  // namespace ddpo
