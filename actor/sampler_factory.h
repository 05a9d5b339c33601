#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "actor/sampler.h"
#include "ddpo/config/v1/config.pb.h"

namespace ddpo {

// The sampler that the configuration asks for, on the model of that folder; sets LibTorch's threads
// for this process. Errors are those of Pipeline::Load.
absl::StatusOr<std::unique_ptr<Sampler>> CreateSampler(const config::v1::Config& config,
                                                       const std::string& model_dir);

}  // namespace ddpo
