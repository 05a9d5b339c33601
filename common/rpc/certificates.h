#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace ddpo {

// Faults of PEM files that a handshake would report far away and in few words. gRPC reads the files
// itself.
//
// NOT_FOUND (or what else reading gives) for a file; INVALID_ARGUMENT if it holds no certificate or
// key, the two don't belong together, or the certificate is not valid at `now`.
absl::Status CheckKeyPair(const std::string& certificate_file, const std::string& private_key_file,
                          absl::Time now);

// A file of authorities: at least one certificate that is valid at `now`.
absl::Status CheckAuthorities(const std::string& file, absl::Time now);

}  // namespace ddpo
