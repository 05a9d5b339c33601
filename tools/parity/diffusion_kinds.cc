#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/nn/lora.h"
#include "tools/parity/kinds.h"

namespace ddpo {

absl::StatusOr<Pipeline*> ParityModel::pipeline() {
  if (pipeline_ == nullptr) {
    DDPO_ASSIGN_OR_RETURN(pipeline_, Pipeline::Load(dir_, options_));
  }
  return pipeline_.get();
}

namespace {

absl::StatusOr<NamedTensors> TextEncoder(const Fixture& fixture, ParityModel& model) {
  DDPO_ASSIGN_OR_RETURN(const Pipeline* pipeline, model.pipeline());
  DDPO_ASSIGN_OR_RETURN(at::Tensor ids, fixture.Integers("input_ids", 2));
  return NamedTensors{{"last_hidden_state", pipeline->text_encoder().Forward(ids)}};
}

// The fixture's LoRA, null where it has none.
absl::StatusOr<std::unique_ptr<LoraWeights>> FixtureLora(const Fixture& fixture, const UNet& unet) {
  if (fixture.lora().empty()) return nullptr;
  DDPO_ASSIGN_OR_RETURN(double alpha, fixture.NumberOr("lora_alpha", 0));
  DDPO_ASSIGN_OR_RETURN(LoraWeights lora, LoraFromTensors(unet, fixture.lora(), alpha));
  return std::make_unique<LoraWeights>(std::move(lora));
}

absl::StatusOr<NamedTensors> UNetForward(const Fixture& fixture, ParityModel& model) {
  DDPO_ASSIGN_OR_RETURN(const Pipeline* pipeline, model.pipeline());
  DDPO_ASSIGN_OR_RETURN(at::Tensor sample, fixture.Floats("sample", 4));
  DDPO_ASSIGN_OR_RETURN(at::Tensor timestep, fixture.Integers("timestep", 1));
  DDPO_ASSIGN_OR_RETURN(at::Tensor text, fixture.Floats("encoder_hidden_states", 3));
  DDPO_ASSIGN_OR_RETURN(std::unique_ptr<LoraWeights> lora, FixtureLora(fixture, pipeline->unet()));
  return NamedTensors{{"sample", pipeline->unet().Forward(sample, timestep, text, lora.get())}};
}

absl::StatusOr<NamedTensors> VaeDecode(const Fixture& fixture, ParityModel& model) {
  DDPO_ASSIGN_OR_RETURN(const Pipeline* pipeline, model.pipeline());
  DDPO_ASSIGN_OR_RETURN(at::Tensor latents, fixture.Floats("latents", 4));
  return NamedTensors{{"image", pipeline->vae().Decode(latents)}};
}

absl::StatusOr<NamedTensors> VaeEncode(const Fixture& fixture, ParityModel& model) {
  DDPO_ASSIGN_OR_RETURN(const Pipeline* pipeline, model.pipeline());
  DDPO_ASSIGN_OR_RETURN(at::Tensor image, fixture.Floats("image", 4));
  Vae::Posterior posterior = pipeline->vae().Encode(image);
  return NamedTensors{{"mean", posterior.mean}, {"logvar", posterior.logvar}};
}

absl::StatusOr<NamedTensors> Ddim(const Fixture& fixture, ParityModel& model) {
  DDPO_ASSIGN_OR_RETURN(const Pipeline* pipeline, model.pipeline());
  DDPO_ASSIGN_OR_RETURN(at::Tensor sample, fixture.Floats("sample", 4));
  DDPO_ASSIGN_OR_RETURN(at::Tensor model_output, fixture.Floats("model_output", 4));
  DDPO_ASSIGN_OR_RETURN(at::Tensor noise, fixture.Floats("noise", 4));
  DDPO_ASSIGN_OR_RETURN(int64_t steps, fixture.Integer("num_inference_steps"));
  DDPO_ASSIGN_OR_RETURN(int64_t index, fixture.Integer("step_index"));
  DDPO_ASSIGN_OR_RETURN(double eta, fixture.Number("eta"));
  DDPO_ASSIGN_OR_RETURN(std::vector<int64_t> timesteps,
                        pipeline->scheduler().Timesteps(static_cast<int>(steps)));
  if (index < 0 || index >= static_cast<int64_t>(timesteps.size())) {
    return fixture.Error(
        absl::StrCat("params.step_index is ", index, ", expected 0 … ", timesteps.size() - 1));
  }
  const at::Tensor t = at::full({sample.size(0)}, timesteps[index], at::kLong);
  DdimStep step =
      pipeline->scheduler().Step(sample, model_output, t, static_cast<int>(steps), eta, noise);
  return NamedTensors{{"prev_sample", step.prev_sample}, {"log_prob", step.log_prob}};
}

// x_0 as [B,H,W,3] uint8. A value that lies on the border between two integers within the tolerance
// of a float32 image (1e-4 in −1…1) may round either way: there it takes the side of `expected`, so
// that integers can be held to equality.
at::Tensor RoundedImages(const Pipeline& pipeline, const at::Tensor& x0,
                         const at::Tensor& expected) {
  constexpr double kBorder = 1e-4 * 127.5;
  const at::Tensor pixels = ((pipeline.vae().Decode(x0 / pipeline.vae().scaling_factor()) + 1) / 2)
                                .clamp(0, 1)
                                .mul(255)
                                .permute({0, 2, 3, 1});
  const at::Tensor rounded = pixels.round();
  if (!expected.defined() || expected.sizes() != pixels.sizes()) return rounded.to(at::kByte);
  const at::Tensor wanted = expected.to(at::kFloat);
  const at::Tensor on_border = (pixels - wanted).abs().le(0.5 + kBorder);
  return at::where(on_border, wanted, rounded).to(at::kByte);
}

absl::StatusOr<NamedTensors> Denoise(const Fixture& fixture, ParityModel& model) {
  DDPO_ASSIGN_OR_RETURN(const Pipeline* pipeline, model.pipeline());
  DDPO_ASSIGN_OR_RETURN(std::vector<std::string> prompts, fixture.Strings("prompts"));
  DDPO_ASSIGN_OR_RETURN(int64_t steps, fixture.Integer("num_inference_steps"));
  DenoiseOptions options;
  options.num_steps = static_cast<int>(steps);
  DDPO_ASSIGN_OR_RETURN(options.guidance_scale, fixture.Number("guidance_scale"));
  DDPO_ASSIGN_OR_RETURN(options.eta, fixture.Number("eta"));
  DenoiseNoise noise;
  DDPO_ASSIGN_OR_RETURN(noise.latents, fixture.Floats("latents", 4));
  DDPO_ASSIGN_OR_RETURN(noise.steps, fixture.Floats("noise", 5));
  DDPO_ASSIGN_OR_RETURN(std::unique_ptr<LoraWeights> lora, FixtureLora(fixture, pipeline->unet()));
  DDPO_ASSIGN_OR_RETURN(Trajectory trajectory,
                        pipeline->Denoise(prompts, noise, options, lora.get()));
  const at::Tensor x0 = trajectory.latents.select(1, steps);
  auto images = fixture.expected().find("images");
  return NamedTensors{
      {"latents", trajectory.latents},
      {"log_probs", trajectory.log_probs},
      {"images",
       RoundedImages(*pipeline, x0,
                     images == fixture.expected().end() ? at::Tensor() : images->second)}};
}

}  // namespace

void AddDiffusionKinds(ParityKinds& kinds) {
  kinds["text_encoder"] = TextEncoder;
  kinds["unet"] = UNetForward;
  kinds["vae_decode"] = VaeDecode;
  kinds["vae_encode"] = VaeEncode;
  kinds["ddim_step"] = Ddim;
  kinds["denoise"] = Denoise;
}

}  // namespace ddpo
