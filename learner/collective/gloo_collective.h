#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "learner/collective/collective.h"
#include "learner/collective/key_value_store.h"

namespace ddpo {

// Ranks on CPUs, over TCP. A buffer of float32 is added by Gloo's ring; bfloat16 is UNIMPLEMENTED.
absl::StatusOr<std::unique_ptr<Collective>> CreateGlooCollective(
    const CollectiveOptions& options, std::shared_ptr<KeyValueStore> store);

}  // namespace ddpo
