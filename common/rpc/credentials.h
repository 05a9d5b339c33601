#pragma once

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/address.h"
#include "ddpo/config/v1/security.pb.h"

namespace ddpo {

// The files are checked now and read again by themselves when they change, within about a second:
// new connections use the new ones, open ones go on. NOT_FOUND and INVALID_ARGUMENT name the file
// or the key of `security` that is at fault.

// TLS where `tls` has a certificate, with clients that prove themselves where it has a client_ca;
// otherwise plain text, which INVALID_ARGUMENT refuses beyond loopback unless it is asked for. With
// a `tokens_file` every call needs `authorization: Bearer TOKEN`, but for health checks and
// reflection, or ends as UNAUTHENTICATED; tokens don't go with plain text beyond loopback.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> CreateServerCredentials(
    const config::v1::TlsConfig& tls, const std::string& tokens_file, const HostPort& listen,
    bool allow_plain_text_anywhere);

// TLS where `tls` has a server_ca, with the own certificate where it has one; otherwise plain text.
// With a `token_file`, which plain text takes to a loopback address only, every call shows it.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> CreateChannelCredentials(
    const config::v1::TlsConfig& tls, const std::string& token_file, const HostPort& address);

}  // namespace ddpo
