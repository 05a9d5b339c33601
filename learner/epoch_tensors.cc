#include "learner/epoch_tensors.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace ddpo {

absl::Status CheckTrajectory(const Pipeline& pipeline, int64_t num_steps,
                             const TrainingSample& sample) {
  const int64_t channels = pipeline.unet().in_channels();
  const int64_t size = pipeline.unet().sample_size();
  const auto latent_values = static_cast<size_t>((num_steps + 1) * channels * size * size);
  if (sample.latents.size() == latent_values &&
      sample.log_probs.size() == static_cast<size_t>(num_steps)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("sample ", sample.sample_index, " of task ", sample.task_id, " has ",
                   sample.latents.size(), " latent values and ", sample.log_probs.size(),
                   " log-probabilities, expected ", latent_values, " ([", num_steps + 1, ",",
                   channels, ",", size, ",", size, "]) and ", num_steps));
}

at::Tensor Latents(const Pipeline& pipeline, int64_t num_steps, const TrainingSample& sample) {
  const int64_t channels = pipeline.unet().in_channels();
  const int64_t size = pipeline.unet().sample_size();
  // LibTorch has no read-only views.
  auto* values = const_cast<float*>(sample.latents.data());  // NOLINT(*-const-cast)
  return at::from_blob(values, {num_steps + 1, channels, size, size}, at::kFloat);
}

at::Tensor FinalLatent(const Pipeline& pipeline, int64_t num_steps, const TrainingSample& sample) {
  return Latents(pipeline, num_steps, sample)[num_steps];
}

absl::StatusOr<EpochTensors> EpochTensors::Create(const Pipeline& pipeline, int64_t num_steps,
                                                  const EpochSamples& epoch) {
  EpochTensors tensors;
  const auto count = static_cast<int64_t>(epoch.samples.size());
  const at::Tensor all_log_probs = at::empty({count, num_steps}, at::kFloat);
  std::vector<std::string> prompts;
  for (int64_t i = 0; i < count; ++i) {
    const TrainingSample& sample = epoch.samples[i];
    DDPO_RETURN_IF_ERROR(CheckTrajectory(pipeline, num_steps, sample));
    tensors.latents.push_back(Latents(pipeline, num_steps, sample));
    std::copy(sample.log_probs.begin(), sample.log_probs.end(), all_log_probs[i].data_ptr<float>());
    prompts.push_back(sample.prompt);
  }
  tensors.cond = pipeline.EncodePrompts(prompts);
  tensors.uncond = pipeline.EncodePrompts({""});
  const at::Device device = tensors.cond.device();
  tensors.log_probs = all_log_probs.to(device);
  tensors.advantages =
      at::tensor(at::ArrayRef<double>(epoch.weights.data(), epoch.weights.size()), at::kDouble)
          .to(device, at::kFloat);
  return tensors;
}

PolicyBatch EpochTensors::Take(const at::Tensor& rows, const at::Tensor& timestep_order) const {
  const at::Tensor index = rows.to(cond.device());
  PolicyBatch batch;
  batch.cond = cond.index_select(0, index);
  batch.uncond = uncond;
  for (int64_t i = 0; i < rows.size(0); ++i) {
    batch.latents.push_back(latents[rows[i].item<int64_t>()]);
  }
  batch.log_probs = log_probs.index_select(0, index);
  if (start_log_probs.defined()) {
    batch.start_log_probs = start_log_probs.index_select(0, index);
  }
  batch.advantages = advantages.index_select(0, index);
  batch.timestep_order = timestep_order;
  return batch;
}

}  // namespace ddpo
