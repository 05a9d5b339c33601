#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "learner/collective/collective.h"
#include "learner/collective/key_value_store.h"

namespace ddpo {

// Ranks on GPUs. The communicator is non-blocking and its errors are polled, so that a dead rank
// becomes a status within the timeout and never a hang. Only in builds with CUDA.
absl::StatusOr<std::unique_ptr<Collective>> CreateNcclCollective(
    const CollectiveOptions& options, std::shared_ptr<KeyValueStore> store);

}  // namespace ddpo
