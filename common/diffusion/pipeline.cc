#include "common/diffusion/pipeline.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/diffusion/model_index.h"

namespace ddpo {
namespace {

// Bounds the embeddings that are kept; the largest prompt lists have a few hundred.
constexpr size_t kMaxEmbeddings = 1024;

// A file that a pipeline's folder lacks makes the folder wrong; it was found itself.
template <typename T>
absl::StatusOr<T> AsPartOfFolder(absl::StatusOr<T> component) {
  if (!absl::IsNotFound(component.status())) return component;
  return absl::InvalidArgumentError(component.status().message());
}

std::string ShapeOf(const at::Tensor& tensor) {
  return absl::StrCat("[", absl::StrJoin(tensor.sizes(), ","), "]");
}

// Every prompt that the tokenizer may give must have its place in the text encoder's tables.
absl::Status CheckTokensFit(const std::string& dir, const ClipTokenizer& tokenizer,
                            const ClipTextEncoder& text_encoder) {
  if (tokenizer.model_max_length() > text_encoder.positions()) {
    return absl::InvalidArgumentError(
        absl::StrCat(dir, "/tokenizer: model_max_length is ", tokenizer.model_max_length(),
                     ", expected at most the text encoder's max_position_embeddings, ",
                     text_encoder.positions()));
  }
  if (tokenizer.max_token_id() >= text_encoder.vocabulary()) {
    return absl::InvalidArgumentError(absl::StrCat(
        dir, "/tokenizer: holds a token of number ", tokenizer.max_token_id(),
        ", expected less than the text encoder's vocab_size, ", text_encoder.vocabulary()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Pipeline>> Pipeline::Load(const std::string& dir,
                                                         const NetworkOptions& options) {
  DDPO_RETURN_IF_ERROR(CheckModelIndex(dir));
  std::unique_ptr<Pipeline> pipeline(new Pipeline());
  pipeline->options_ = options;
  DDPO_ASSIGN_OR_RETURN(pipeline->unet_, AsPartOfFolder(UNet::Load(dir + "/unet", options)));
  DDPO_ASSIGN_OR_RETURN(pipeline->vae_, AsPartOfFolder(Vae::Load(dir + "/vae", options)));
  DDPO_ASSIGN_OR_RETURN(pipeline->text_encoder_,
                        AsPartOfFolder(ClipTextEncoder::Load(dir + "/text_encoder", options)));
  DDPO_ASSIGN_OR_RETURN(pipeline->tokenizer_,
                        AsPartOfFolder(ClipTokenizer::Load(dir + "/tokenizer")));
  DDPO_ASSIGN_OR_RETURN(DdimScheduler scheduler,
                        AsPartOfFolder(DdimScheduler::Load(dir + "/scheduler")));
  pipeline->scheduler_ = std::make_unique<DdimScheduler>(std::move(scheduler));

  const int64_t unet_channels = pipeline->unet_->in_channels();
  if (unet_channels != pipeline->vae_->latent_channels()) {
    return absl::InvalidArgumentError(absl::StrCat(
        dir, ": the UNet takes ", unet_channels, " channels, expected the VAE's latent channels, ",
        pipeline->vae_->latent_channels()));
  }
  DDPO_RETURN_IF_ERROR(CheckTokensFit(dir, *pipeline->tokenizer_, *pipeline->text_encoder_));
  const int64_t text_width = pipeline->EncodePrompts({""}).size(2);
  if (text_width != pipeline->unet_->cross_attention_dim()) {
    return absl::InvalidArgumentError(absl::StrCat(
        dir, ": the text encoder's width is ", text_width,
        ", expected the UNet's cross_attention_dim, ", pipeline->unet_->cross_attention_dim()));
  }
  return pipeline;
}

at::Tensor Pipeline::EncodePrompts(const std::vector<std::string>& prompts) const {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> rows;
  rows.reserve(prompts.size());
  absl::MutexLock lock(&embeddings_mutex_);
  if (embeddings_.size() > kMaxEmbeddings) embeddings_.clear();
  for (const std::string& prompt : prompts) {
    auto entry = embeddings_.find(prompt);
    if (entry == embeddings_.end()) {
      const at::Tensor ids = at::tensor(tokenizer_->Encode(prompt), at::kLong).unsqueeze(0);
      const at::Tensor embedding = text_encoder_->Forward(ids.to(options_.device)).squeeze(0);
      entry = embeddings_.emplace(prompt, embedding).first;
    }
    rows.push_back(entry->second);
  }
  return at::stack(rows);
}

std::vector<int64_t> Pipeline::LatentShape() const {
  return {unet_->in_channels(), unet_->sample_size(), unet_->sample_size()};
}

DenoiseNoise Pipeline::DrawNoise(const std::vector<uint64_t>& seeds, int num_steps) const {
  std::vector<int64_t> shape = LatentShape();
  shape.insert(shape.begin(), 1);
  std::vector<at::Tensor> latents;
  std::vector<at::Tensor> steps;
  for (uint64_t seed : seeds) {
    at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
    latents.push_back(at::randn(shape, generator, at::kFloat));
    std::vector<at::Tensor> of_sample;
    for (int step = 0; step < num_steps; ++step) {
      of_sample.push_back(at::randn(shape, generator, at::kFloat));
    }
    steps.push_back(at::stack(of_sample));
  }
  return {at::cat(latents).to(options_.device), at::cat(steps, 1).to(options_.device)};
}

at::Tensor Pipeline::PredictNoise(const at::Tensor& latents, const at::Tensor& timesteps,
                                  const at::Tensor& uncond, const at::Tensor& cond,
                                  double guidance_scale, const LoraWeights* lora,
                                  bool detach_unconditional) const {
  const auto text = PrepareGuidance(uncond, cond, guidance_scale, lora);
  return PredictNoise(latents, timesteps, *text, guidance_scale, lora, detach_unconditional);
}

std::shared_ptr<const UNet::TextKeyValues> Pipeline::PrepareGuidance(
    const at::Tensor& uncond, const at::Tensor& cond, double guidance_scale,
    const LoraWeights* lora) const {
  return unet_->PrepareText(guidance_scale == 1 ? cond : at::cat({uncond, cond}), lora);
}

at::Tensor Pipeline::PredictNoise(const at::Tensor& latents, const at::Tensor& timesteps,
                                  const UNet::TextKeyValues& text, double guidance_scale,
                                  const LoraWeights* lora, bool detach_unconditional) const {
  if (guidance_scale == 1) return unet_->Forward(latents, timesteps, text, lora);
  const at::Tensor both =
      unet_->Forward(at::cat({latents, latents}), at::cat({timesteps, timesteps}), text, lora);
  const int64_t samples = latents.size(0);
  const at::Tensor first_half = both.slice(0, 0, samples);
  const at::Tensor predicted_uncond = detach_unconditional ? first_half.detach() : first_half;
  const at::Tensor predicted_cond = both.slice(0, samples, 2 * samples);
  return predicted_uncond + guidance_scale * (predicted_cond - predicted_uncond);
}

absl::StatusOr<Trajectory> Pipeline::Denoise(
    const std::vector<std::string>& prompts, const DenoiseNoise& noise,
    const DenoiseOptions& options, const LoraWeights* lora,
    const std::function<absl::Status(int)>& on_step) const {
  const at::NoGradGuard no_grad;
  DDPO_ASSIGN_OR_RETURN(const std::vector<int64_t> timesteps,
                        scheduler_->Timesteps(options.num_steps));
  const auto samples = static_cast<int64_t>(prompts.size());
  const bool fits = samples > 0 && noise.latents.dim() == 4 && noise.steps.dim() == 5 &&
                    noise.latents.size(0) == samples &&
                    noise.latents.size(1) == unet_->in_channels() &&
                    noise.steps.size(0) == options.num_steps &&
                    noise.steps.sizes().slice(1) == noise.latents.sizes();
  if (!fits) {
    return absl::InvalidArgumentError(absl::StrCat(
        "denoising ", samples, " prompts in ", options.num_steps, " steps: x_T has shape ",
        ShapeOf(noise.latents), " and the steps' noise ", ShapeOf(noise.steps), ", expected [",
        samples, ",", unet_->in_channels(), ",h,w] and [", options.num_steps, ",", samples, ",",
        unet_->in_channels(), ",h,w]"));
  }
  const at::Tensor cond = EncodePrompts(prompts);
  const at::Tensor uncond = EncodePrompts({""}).expand_as(cond);
  // The weights stay as they are on the whole way, and so do the text's keys and values.
  const auto text = PrepareGuidance(uncond, cond, options.guidance_scale, lora);
  const at::Tensor step_noise = noise.steps.to(options_.device);
  std::vector<at::Tensor> latents = {noise.latents.to(options_.device)};
  std::vector<at::Tensor> log_probs;
  for (int step = 0; step < options.num_steps; ++step) {
    if (on_step) DDPO_RETURN_IF_ERROR(on_step(step));
    const at::Tensor t =
        at::full({samples}, timesteps[step], at::TensorOptions(at::kLong).device(options_.device));
    const at::Tensor predicted =
        PredictNoise(latents.back(), t, *text, options.guidance_scale, lora);
    DdimStep result = scheduler_->Step(latents.back(), predicted, t, options.num_steps, options.eta,
                                       step_noise[step]);
    latents.push_back(std::move(result.prev_sample));
    log_probs.push_back(std::move(result.log_prob));
  }
  return Trajectory{at::stack(latents, 1), at::stack(log_probs, 1)};
}

at::Tensor Pipeline::DecodeImages(const at::Tensor& latents) const {
  const at::NoGradGuard no_grad;
  const at::Tensor image = vae_->Decode(latents / vae_->scaling_factor());
  return ((image / 2 + 0.5).clamp(0, 1) * 255)
      .round()
      .to(at::kByte)
      .permute({0, 2, 3, 1})
      .contiguous();
}

std::vector<Image> Pipeline::DecodeToImages(const at::Tensor& latents) const {
  const at::Tensor decoded = DecodeImages(latents).to(at::kCPU);
  std::vector<Image> images;
  for (const at::Tensor& pixels : decoded.unbind()) {
    Image image;
    image.height = static_cast<int>(pixels.size(0));
    image.width = static_cast<int>(pixels.size(1));
    const uint8_t* bytes = pixels.const_data_ptr<uint8_t>();
    image.rgb.assign(bytes, bytes + pixels.numel());
    images.push_back(std::move(image));
  }
  return images;
}

absl::StatusOr<std::string> Pipeline::ModelDigest(const std::string& dir) {
  DDPO_RETURN_IF_ERROR(CheckModelIndex(dir));
  return DigestModelFolder(dir);
}

}  // namespace ddpo
