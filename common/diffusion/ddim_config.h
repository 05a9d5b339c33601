#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace ddpo {

// scheduler_config.json as DDIM uses it. A field's default is that of diffusers' DDIMScheduler.
struct DdimConfig {
  int64_t num_train_timesteps = 1000;
  double beta_start = 0.0001;
  double beta_end = 0.02;
  std::string beta_schedule = "linear";  // linear, scaled_linear or squaredcos_cap_v2
  bool set_alpha_to_one = true;
  int64_t steps_offset = 0;
  std::string prediction_type = "epsilon";   // epsilon, v_prediction or sample
  std::string timestep_spacing = "leading";  // leading, trailing or linspace
};

// Reads a scheduler_config.json of DDIMScheduler, or of one of the schedulers that pipelines of the
// SD 1.x family come with, which is then read as `DDIMScheduler.from_config` reads it. NOT_FOUND
// for a missing file; INVALID_ARGUMENT names the file, the key, its value and what is supported for
// anything that would change the computation.
absl::StatusOr<DdimConfig> ReadDdimConfig(const std::string& path);

}  // namespace ddpo
