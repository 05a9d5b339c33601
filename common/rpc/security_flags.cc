#include "common/rpc/security_flags.h"

namespace ddpo {

using config::v1::SecurityConfig;

void AddCertificateFlags(CLI::App* app, SecurityConfig* security) {
  app->add_option("--tls-cert", *security->mutable_tls()->mutable_certificate(),
                  "PEM file with the own certificate (security.tls.certificate)");
  app->add_option("--tls-key", *security->mutable_tls()->mutable_private_key(),
                  "PEM file with its private key (security.tls.private_key)");
}

void AddTlsServerFlags(CLI::App* app, SecurityConfig* security) {
  app->add_option("--tls-client-ca", *security->mutable_tls()->mutable_client_ca(),
                  "PEM file with the authorities of clients, which then have to show a certificate "
                  "(security.tls.client_ca)");
}

void AddTlsClientFlags(CLI::App* app, SecurityConfig* security) {
  app->add_option("--tls-ca", *security->mutable_tls()->mutable_server_ca(),
                  "PEM file with the authorities of servers; speaks TLS (security.tls.server_ca)");
  app->add_option("--tls-server-name", *security->mutable_tls()->mutable_server_name_override(),
                  "Name in servers' certificates, where it is not the address's host "
                  "(security.tls.server_name_override)");
}

void AddTokenFlag(CLI::App* app, SecurityConfig* security) {
  app->add_option("--token-file", *security->mutable_token_file(),
                  "File with the bearer token for reward servers (security.token_file)");
}

}  // namespace ddpo
