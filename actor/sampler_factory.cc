#include "actor/sampler_factory.h"

#include <ATen/Parallel.h>

#include <utility>

#include "actor/torch_sampler.h"
#include "common/base/logging.h"
#include "common/base/status_macros.h"
#include "common/diffusion/pipeline.h"

namespace ddpo {

absl::StatusOr<std::unique_ptr<Sampler>> CreateSampler(const config::v1::Config& config,
                                                       const std::string& model_dir) {
  at::set_num_threads(config.cluster().threads_per_process());
  LogInfo("LibTorch uses ", at::get_num_threads(), " thread(s)");
  const auto& sampling = config.sampling();
  DDPO_ASSIGN_OR_RETURN(const NetworkOptions network,
                        ParseNetworkOptions(sampling.dtype(), sampling.device()));
  DDPO_ASSIGN_OR_RETURN(std::unique_ptr<Pipeline> pipeline, Pipeline::Load(model_dir, network));
  TorchSamplerOptions options;
  options.denoise = {.num_steps = sampling.num_steps(),
                     .guidance_scale = sampling.guidance_scale(),
                     .eta = sampling.eta()};
  options.merge_lora = sampling.merge_lora();
  return CreateTorchSampler(options, std::move(pipeline));
}

}  // namespace ddpo
