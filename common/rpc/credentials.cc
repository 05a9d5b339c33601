#include "common/rpc/credentials.h"

#include <grpcpp/security/auth_metadata_processor.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "common/base/status_macros.h"
#include "common/rpc/certificates.h"
#include "common/rpc/status.h"
#include "common/rpc/tokens.h"

namespace ddpo {
namespace {

using config::v1::TlsConfig;
using grpc::experimental::FileWatcherCertificateProvider;

// Seconds between two looks at the files.
constexpr unsigned int kRefreshSeconds = 1;

absl::string_view ToStringView(const grpc::string_ref& text) { return {text.data(), text.size()}; }

// Whoever probes a server or asks what it speaks has no token.
bool NeedsToken(absl::string_view method) {
  return !absl::StartsWith(method, "/grpc.health.v1.Health/") &&
         !absl::StartsWith(method, "/grpc.reflection.");
}

class TokenCheck : public grpc::AuthMetadataProcessor {
 public:
  explicit TokenCheck(std::unique_ptr<TokenList> tokens) : tokens_(std::move(tokens)) {}

  bool IsBlocking() const override { return false; }

  grpc::Status Process(const InputMetadata& metadata, grpc::AuthContext*, OutputMetadata*,
                       OutputMetadata*) override {
    const auto method = metadata.find(":path");
    if (method != metadata.end() && !NeedsToken(ToStringView(method->second))) {
      return grpc::Status::OK;
    }
    const auto header = metadata.find("authorization");
    if (header == metadata.end()) {
      return ToGrpcStatus(absl::UnauthenticatedError(
          "this server needs a bearer token: expected metadata `authorization: Bearer TOKEN`"));
    }
    absl::string_view token = ToStringView(header->second);
    if (!absl::ConsumePrefix(&token, "Bearer ") && !absl::ConsumePrefix(&token, "bearer ")) {
      return ToGrpcStatus(absl::UnauthenticatedError(
          "metadata `authorization`: expected `Bearer TOKEN`, got something else"));
    }
    return ToGrpcStatus(tokens_->Authenticate(token).status());
  }

 private:
  const std::unique_ptr<TokenList> tokens_;
};

class TokenPlugin : public grpc::MetadataCredentialsPlugin {
 public:
  explicit TokenPlugin(std::unique_ptr<ClientToken> token) : token_(std::move(token)) {}

  bool IsBlocking() const override { return false; }

  grpc::Status GetMetadata(grpc::string_ref, grpc::string_ref, const grpc::AuthContext&,
                           std::multimap<std::string, std::string>* metadata) override {
    metadata->emplace("authorization", absl::StrCat("Bearer ", token_->Get()));
    return grpc::Status::OK;
  }

 private:
  const std::unique_ptr<ClientToken> token_;
};

absl::Status CheckOwnCertificate(const TlsConfig& tls) {
  if (tls.certificate().empty() != tls.private_key().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "security.tls: ", tls.certificate().empty() ? "private_key" : "certificate",
        " is given without ", tls.certificate().empty() ? "certificate" : "private_key"));
  }
  if (tls.certificate().empty()) return absl::OkStatus();
  return CheckKeyPair(tls.certificate(), tls.private_key(), absl::Now());
}

std::shared_ptr<FileWatcherCertificateProvider> Watch(const TlsConfig& tls,
                                                      const std::string& authorities) {
  return std::make_shared<FileWatcherCertificateProvider>(tls.private_key(), tls.certificate(),
                                                          authorities, kRefreshSeconds);
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> TlsServer(const TlsConfig& tls) {
  if (!tls.client_ca().empty()) {
    DDPO_RETURN_IF_ERROR(CheckAuthorities(tls.client_ca(), absl::Now()));
  }
  grpc::experimental::TlsServerCredentialsOptions options(Watch(tls, tls.client_ca()));
  options.watch_identity_key_cert_pairs();
  if (!tls.client_ca().empty()) {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> TlsChannel(const TlsConfig& tls) {
  DDPO_RETURN_IF_ERROR(CheckAuthorities(tls.server_ca(), absl::Now()));
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(Watch(tls, tls.server_ca()));
  options.watch_root_certs();
  if (!tls.certificate().empty()) options.watch_identity_key_cert_pairs();
  return grpc::experimental::TlsCredentials(options);
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> CreateServerCredentials(
    const TlsConfig& tls, const std::string& tokens_file, const HostPort& listen,
    bool allow_plain_text_anywhere) {
  DDPO_RETURN_IF_ERROR(CheckOwnCertificate(tls));
  const bool encrypted = !tls.certificate().empty();
  const bool loopback = IsLoopbackHost(listen.host);
  if (!encrypted && !tls.client_ca().empty()) {
    return absl::InvalidArgumentError("security.tls: client_ca is given without certificate");
  }
  if (!encrypted && !loopback && !allow_plain_text_anywhere) {
    return absl::InvalidArgumentError(
        absl::StrCat("listen address ", listen.ToString(),
                     " is not loopback: plain text there has to be asked for; with "
                     "security.tls.certificate the server may listen anywhere"));
  }
  if (!encrypted && !loopback && !tokens_file.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("security.tokens_file: tokens don't travel in plain text to ",
                     listen.ToString(), ": give security.tls.certificate"));
  }
  std::shared_ptr<grpc::ServerCredentials> credentials;
  if (encrypted) {
    DDPO_ASSIGN_OR_RETURN(credentials, TlsServer(tls));
  } else if (tokens_file.empty()) {
    return grpc::InsecureServerCredentials();
  } else {
    // On the wire these are plain text, too, and clients of plain text can connect; but unlike the
    // insecure ones they can check calls.
    credentials = grpc::experimental::LocalServerCredentials(LOCAL_TCP);
  }
  if (!tokens_file.empty()) {
    DDPO_ASSIGN_OR_RETURN(std::unique_ptr<TokenList> tokens, TokenList::Load(tokens_file));
    credentials->SetAuthMetadataProcessor(std::make_shared<TokenCheck>(std::move(tokens)));
  }
  return credentials;
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> CreateChannelCredentials(
    const TlsConfig& tls, const std::string& token_file, const HostPort& address) {
  DDPO_RETURN_IF_ERROR(CheckOwnCertificate(tls));
  const bool encrypted = !tls.server_ca().empty();
  if (token_file.empty()) {
    if (encrypted) return TlsChannel(tls);
    return grpc::InsecureChannelCredentials();
  }
  if (!encrypted && !IsLoopbackHost(address.host)) {
    return absl::InvalidArgumentError(
        absl::StrCat("security.token_file: tokens don't travel in plain text to ",
                     address.ToString(), ": give security.tls.server_ca"));
  }
  DDPO_ASSIGN_OR_RETURN(std::unique_ptr<ClientToken> token, ClientToken::Load(token_file));
  auto plugin = std::make_unique<TokenPlugin>(std::move(token));
  if (!encrypted) {
    return grpc::CompositeChannelCredentials(
        grpc::experimental::LocalCredentials(LOCAL_TCP),
        grpc::experimental::MetadataCredentialsFromPlugin(std::move(plugin), GRPC_SECURITY_NONE));
  }
  DDPO_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::ChannelCredentials> channel, TlsChannel(tls));
  return grpc::CompositeChannelCredentials(channel,
                                           grpc::MetadataCredentialsFromPlugin(std::move(plugin)));
}

}  // namespace ddpo
