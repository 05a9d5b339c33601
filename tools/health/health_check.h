#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "ddpo/config/v1/security.pb.h"

namespace ddpo {

// Asks a server's health service (grpc.health.v1), in plain text unless `tls` has a server_ca. The
// name is a service's, or empty for the server as a whole.
//   OK                 SERVING
//   UNAVAILABLE        another answer, or none until the deadline
//   NOT_FOUND          the server knows no such name
//   INVALID_ARGUMENT   the address
absl::Status CheckHealth(const std::string& address, const std::string& service,
                         absl::Duration deadline, const config::v1::TlsConfig& tls = {});

}  // namespace ddpo
