#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "ddpo/config/v1/security.pb.h"

namespace ddpo {

// Adds to the error of a call to `address` what is wrong with TLS, where that is it: gRPC says
// "Socket closed" or "certificate verify failed" whichever side refuses the other and whyever. For
// messages to people: connects once more by itself, which takes up to about `patience`. A status
// that is not UNAVAILABLE or DEADLINE_EXCEEDED, and one that TLS does not explain, stays as it is.
absl::Status ExplainConnection(const absl::Status& error, const std::string& address,
                               const config::v1::TlsConfig& tls,
                               absl::Duration patience = absl::Seconds(2));

}  // namespace ddpo
