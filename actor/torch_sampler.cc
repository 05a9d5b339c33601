#include "actor/torch_sampler.h"

#include <exception>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/nn/lora.h"
#include "common/nn/policy.h"
#include "common/tensors/safetensors.h"

namespace ddpo {
namespace {

class TorchSampler : public Sampler {
 public:
  TorchSampler(const TorchSamplerOptions& options, std::unique_ptr<Pipeline> pipeline)
      : options_(options), pipeline_(std::move(pipeline)) {}

  absl::Status SetPolicy(const std::string& safetensors) override {
    DDPO_ASSIGN_OR_RETURN(SafetensorsContents contents, ParseSafetensors(safetensors));
    try {
      DDPO_ASSIGN_OR_RETURN(std::optional<LoraWeights> lora,
                            ApplyPolicy(pipeline_->unet(), std::move(contents)));
      if (lora.has_value() && options_.merge_lora) return pipeline_->unet().MergeLora(*lora);
      lora_ = std::move(lora);
      return absl::OkStatus();
    } catch (const std::exception& error) {
      return absl::InternalError(absl::StrCat("setting the policy: ", error.what()));
    }
  }

  absl::StatusOr<SampledBatch> Sample(const std::vector<std::string>& prompts,
                                      const std::vector<uint64_t>& seeds,
                                      const std::function<bool()>& cancelled) override {
    if (prompts.empty() || prompts.size() != seeds.size()) {
      return absl::InvalidArgumentError(absl::StrCat(prompts.size(), " prompts and ", seeds.size(),
                                                     " seeds, expected as many of each"));
    }
    try {
      const DenoiseNoise noise = pipeline_->DrawNoise(seeds, options_.denoise.num_steps);
      DDPO_ASSIGN_OR_RETURN(
          const Trajectory trajectory,
          pipeline_->Denoise(
              prompts, noise, options_.denoise, lora_ ? &*lora_ : nullptr, [&cancelled](int step) {
                if (!cancelled || !cancelled()) return absl::OkStatus();
                return absl::CancelledError(absl::StrCat("cancelled before denoising step ", step));
              }));
      return ToBatch(trajectory);
    } catch (const std::exception& error) {
      return absl::InternalError(absl::StrCat("sampling: ", error.what()));
    }
  }

 private:
  SampledBatch ToBatch(const Trajectory& trajectory) const {
    const int num_steps = options_.denoise.num_steps;
    std::vector<Image> images = pipeline_->DecodeToImages(trajectory.latents.select(1, num_steps));
    const at::Tensor latents = trajectory.latents.to(at::kCPU).contiguous();
    const at::Tensor log_probs = trajectory.log_probs.to(at::kCPU).contiguous();
    SampledBatch batch;
    batch.num_steps = num_steps;
    batch.latent_channels = static_cast<int>(latents.size(2));
    batch.latent_height = static_cast<int>(latents.size(3));
    batch.latent_width = static_cast<int>(latents.size(4));
    for (int64_t i = 0; i < latents.size(0); ++i) {
      SampledTrajectory sample;
      sample.latents = Values(latents[i]);
      sample.log_probs = Values(log_probs[i]);
      sample.image = std::move(images[i]);
      batch.samples.push_back(std::move(sample));
    }
    return batch;
  }

  static std::vector<float> Values(const at::Tensor& tensor) {
    const float* values = tensor.const_data_ptr<float>();
    return std::vector<float>(values, values + tensor.numel());
  }

  const TorchSamplerOptions options_;
  const std::unique_ptr<Pipeline> pipeline_;
  std::optional<LoraWeights> lora_;  // unmerged; none where the policy is the UNet's own weights
};

}  // namespace

std::unique_ptr<Sampler> CreateTorchSampler(const TorchSamplerOptions& options,
                                            std::unique_ptr<Pipeline> pipeline) {
  return std::make_unique<TorchSampler>(options, std::move(pipeline));
}

}  // namespace ddpo
