#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace ddpo {

// The two have the same codes; the message travels along. The only place where one becomes the
// other.
grpc::Status ToGrpcStatus(const absl::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace ddpo
