#pragma once

#include <chrono>
#include <string>

#include "absl/status/statusor.h"
#include "ddpo/cluster/v1/cluster.pb.h"
#include "ddpo/config/v1/security.pb.h"

namespace ddpo {

// Asks the coordinator at `address`; the error names the address.
absl::StatusOr<cluster::v1::GetStatusResponse> FetchClusterStatus(
    const std::string& address, const config::v1::TlsConfig& tls,
    std::chrono::milliseconds deadline);

}  // namespace ddpo
