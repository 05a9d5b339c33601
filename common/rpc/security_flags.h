#pragma once

#include <CLI/CLI.hpp>

#include "ddpo/config/v1/security.pb.h"

namespace ddpo {

// Command line flags with the same names in all programs. They fill `security`, which outlives the
// parsing; what is not given stays as it was.

// --tls-cert, --tls-key.
void AddCertificateFlags(CLI::App* app, config::v1::SecurityConfig* security);
// --tls-client-ca.
void AddTlsServerFlags(CLI::App* app, config::v1::SecurityConfig* security);
// --tls-ca, --tls-server-name.
void AddTlsClientFlags(CLI::App* app, config::v1::SecurityConfig* security);
// --token-file.
void AddTokenFlag(CLI::App* app, config::v1::SecurityConfig* security);

}  // namespace ddpo
