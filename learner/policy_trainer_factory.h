#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "ddpo/config/v1/config.pb.h"
#include "learner/collective/collective.h"
#include "learner/policy_trainer.h"

namespace ddpo {

// The trainer that the configuration asks for, as one of the ranks: loads its model and sets
// LibTorch's threads for this process. The collective outlives it. Errors are those of
// Pipeline::Load.
absl::StatusOr<std::unique_ptr<PolicyTrainer>> CreatePolicyTrainer(const config::v1::Config& config,
                                                                   Collective* collective);

}  // namespace ddpo
