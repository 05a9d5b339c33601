#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/nn/aesthetic_head.h"
#include "tools/parity/kinds.h"

namespace ddpo {

absl::StatusOr<const ClipImageEncoder*> ParityModel::clip() {
  if (clip_ == nullptr) {
    DDPO_ASSIGN_OR_RETURN(ClipImageEncoder encoder, ClipImageEncoder::Load(dir_, options_));
    clip_ = std::make_unique<ClipImageEncoder>(std::move(encoder));
  }
  return clip_.get();
}

namespace {

absl::StatusOr<at::Tensor> ImageEmbeds(const Fixture& fixture, ParityModel& model) {
  DDPO_ASSIGN_OR_RETURN(const ClipImageEncoder* clip, model.clip());
  DDPO_ASSIGN_OR_RETURN(const at::Tensor images, fixture.Images("images"));
  DDPO_ASSIGN_OR_RETURN(const at::Tensor pixels, clip->processor().Process(ToImages(images)));
  return clip->Encode(pixels);
}

absl::StatusOr<NamedTensors> ClipImage(const Fixture& fixture, ParityModel& model) {
  DDPO_ASSIGN_OR_RETURN(at::Tensor embeds, ImageEmbeds(fixture, model));
  return NamedTensors{{"image_embeds", embeds}};
}

absl::StatusOr<NamedTensors> Aesthetic(const Fixture& fixture, ParityModel& model) {
  DDPO_ASSIGN_OR_RETURN(const at::Tensor embeds, ImageEmbeds(fixture, model));
  DDPO_ASSIGN_OR_RETURN(const std::string file, fixture.String("head"));
  DDPO_ASSIGN_OR_RETURN(
      const AestheticHead head,
      AestheticHead::Load(JoinPath(model.dir(), file), embeds.size(1), model.options().device));
  return NamedTensors{{"score", head.Score(embeds)}};
}

}  // namespace

void AddClipKinds(ParityKinds& kinds) {
  kinds["clip_image"] = ClipImage;
  kinds["aesthetic"] = Aesthetic;
}

}  // namespace ddpo
