#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/diffusion/ddim_scheduler.h"
#include "common/nn/clip_text_encoder.h"
#include "common/nn/clip_tokenizer.h"
#include "common/nn/lora.h"
#include "common/nn/unet.h"
#include "common/nn/vae.h"
#include "common/tensors/image.h"

namespace ddpo {

struct DenoiseOptions {
  int num_steps = 50;
  double guidance_scale = 5.0;
  double eta = 1.0;
};

// Noise of one denoising: x_T [B,C,h,w] and z of every step [T,B,C,h,w].
struct DenoiseNoise {
  at::Tensor latents;
  at::Tensor steps;
};

// A batch's way from noise to latents. B samples, T steps.
struct Trajectory {
  at::Tensor latents;    // [B,T+1,C,h,w]: x_T … x_0
  at::Tensor log_probs;  // [B,T]
};

// A text-to-image pipeline of the SD 1.x family, from a folder in diffusers' layout. Its const
// functions are thread-safe.
class Pipeline {
 public:
  // A folder of another family, a missing file, tensor or config key and a wrong shape are
  // INVALID_ARGUMENT (NOT_FOUND for the folder itself), with the place.
  static absl::StatusOr<std::unique_ptr<Pipeline>> Load(const std::string& dir,
                                                        const NetworkOptions& options);

  // [B,L,D] float32. Each prompt is encoded by itself, so that its embedding has the same bits in
  // whatever company it comes, and once: embeddings are kept for later calls.
  at::Tensor EncodePrompts(const std::vector<std::string>& prompts) const
      ABSL_LOCKS_EXCLUDED(embeddings_mutex_);

  // [C,h,w] of a sample's latent, as the model was made for.
  std::vector<int64_t> LatentShape() const;

  // Draws each sample's noise from LibTorch's CPU generator at its own seed: x_T, then z of each
  // step; so a sample does not depend on its neighbours. The same numbers in Python:
  //   generator = torch.Generator().manual_seed(seed)
  //   x_T = torch.randn((1, C, h, w), generator=generator), then z of each step likewise
  DenoiseNoise DrawNoise(const std::vector<uint64_t>& seeds, int num_steps) const;

  // Guided ε for a batch: one forward of [uncond, cond]; just cond where guidance_scale is 1.
  // latents [B,C,h,w], timesteps [B], uncond and cond [B,L,D].
  // Gradients flow through both branches, or with `detach_unconditional` only through the
  // conditional one, into the LoRA tensors that require them.
  at::Tensor PredictNoise(const at::Tensor& latents, const at::Tensor& timesteps,
                          const at::Tensor& uncond, const at::Tensor& cond, double guidance_scale,
                          const LoraWeights* lora, bool detach_unconditional = false) const;

  // Denoises with DDIM, without gradients, and records every step. Called before each step:
  // `on_step(step)`; a status that is not OK ends it early and is returned. INVALID_ARGUMENT for
  // noise of another shape and for numbers of steps that the scheduler does not have.
  absl::StatusOr<Trajectory> Denoise(const std::vector<std::string>& prompts,
                                     const DenoiseNoise& noise, const DenoiseOptions& options,
                                     const LoraWeights* lora,
                                     const std::function<absl::Status(int)>& on_step = {}) const;

  // x_0 [B,C,h,w] -> [B,H,W,3] uint8: clamp((x+1)/2, 0, 1)·255, rounded.
  at::Tensor DecodeImages(const at::Tensor& latents) const;
  // The same as images.
  std::vector<Image> DecodeToImages(const at::Tensor& latents) const;

  UNet& unet() { return *unet_; }
  const UNet& unet() const { return *unet_; }
  const Vae& vae() const { return *vae_; }
  const ClipTextEncoder& text_encoder() const { return *text_encoder_; }
  const ClipTokenizer& tokenizer() const { return *tokenizer_; }
  const DdimScheduler& scheduler() const { return *scheduler_; }

  // SHA-256 over the names, sizes and bytes of the files that Load may read (model_index.json and
  // the components' JSON, text and safetensors files), in hexadecimal.
  static absl::StatusOr<std::string> ModelDigest(const std::string& dir);

 private:
  Pipeline() = default;

  // PredictNoise in its two parts: what depends on the text and the LoRA alone, and the rest.
  std::shared_ptr<const UNet::TextKeyValues> PrepareGuidance(const at::Tensor& uncond,
                                                             const at::Tensor& cond,
                                                             double guidance_scale,
                                                             const LoraWeights* lora) const;
  at::Tensor PredictNoise(const at::Tensor& latents, const at::Tensor& timesteps,
                          const UNet::TextKeyValues& text, double guidance_scale,
                          const LoraWeights* lora, bool detach_unconditional = false) const;

  std::unique_ptr<UNet> unet_;
  std::unique_ptr<Vae> vae_;
  std::unique_ptr<ClipTextEncoder> text_encoder_;
  std::unique_ptr<ClipTokenizer> tokenizer_;
  std::unique_ptr<DdimScheduler> scheduler_;
  NetworkOptions options_;

  mutable absl::Mutex embeddings_mutex_;
  // By prompt, [L,D] each.
  mutable std::map<std::string, at::Tensor> embeddings_ ABSL_GUARDED_BY(embeddings_mutex_);
};

}  // namespace ddpo
