#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "ddpo/cluster/v1/cluster.pb.h"

namespace ddpo {

// A policy version as an actor holds it, its digest checked.
struct Policy {
  int64_t version = 0;
  std::string bytes;   // a safetensors file with PEFT's keys
  std::string sha256;  // of the bytes, hexadecimal, as computed here
};

// Puts the chunks of a policy stream together: a header, its bytes, the next header, …
class PolicyAssembler {
 public:
  // The policy that this chunk completed, if it did. DATA_LOSS for bytes without a header, too many
  // bytes, a header that comes too early, or bytes that do not have the header's digest; the stream
  // cannot be used after that.
  absl::StatusOr<std::optional<Policy>> Feed(const cluster::v1::PolicyChunk& chunk);

 private:
  absl::Status Begin(const cluster::v1::PolicyHeader& header);
  absl::StatusOr<std::optional<Policy>> TakeIfComplete();

  std::optional<cluster::v1::PolicyHeader> header_;  // of the policy that is coming
  std::string bytes_;
};

}  // namespace ddpo
