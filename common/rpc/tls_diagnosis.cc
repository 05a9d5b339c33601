#include "common/rpc/tls_diagnosis.h"

#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <csignal>
#include <memory>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/base/address.h"

namespace ddpo {
namespace {

using config::v1::TlsConfig;

struct Release {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL* connection) const { SSL_free(connection); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(addrinfo* addresses) const { freeaddrinfo(addresses); }
};
template <typename T>
using Owned = std::unique_ptr<T, Release>;

// A connected socket whose operations give up after `patience`; −1 if there is no connection.
int Connect(const HostPort& address, absl::Duration patience) {
  const addrinfo hints{.ai_flags = 0,
                       .ai_family = AF_UNSPEC,
                       .ai_socktype = SOCK_STREAM,
                       .ai_protocol = 0,
                       .ai_addrlen = 0,
                       .ai_addr = nullptr,
                       .ai_canonname = nullptr,
                       .ai_next = nullptr};
  addrinfo* list = nullptr;
  if (getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &list) != 0) {
    return -1;
  }
  const Owned<addrinfo> addresses(list);
  const timeval timeout = absl::ToTimeval(patience);
  for (const addrinfo* one = list; one != nullptr; one = one->ai_next) {
    const int fd = socket(one->ai_family, one->ai_socktype | SOCK_CLOEXEC, one->ai_protocol);
    if (fd < 0) continue;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    if (connect(fd, one->ai_addr, one->ai_addrlen) == 0) return fd;
    close(fd);
  }
  return -1;
}

// OpenSSL writes to sockets in a way that raises SIGPIPE where the peer is gone; within this
// object's life this thread does not get it.
class WithoutSigpipe {
 public:
  WithoutSigpipe() {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~WithoutSigpipe() {
    const timespec at_once{};
    while (sigtimedwait(&pipe_, nullptr, &at_once) > 0) {
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  WithoutSigpipe(const WithoutSigpipe&) = delete;

 private:
  sigset_t pipe_;
  sigset_t before_;
};

std::string NameOf(const X509_NAME* name) {
  char text[256] = "";
  X509_NAME_oneline(name, text, sizeof(text));
  return text;
}

std::string Describe(X509* certificate) {
  if (certificate == nullptr) return "";
  std::tm utc{};
  ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &utc);
  return absl::StrCat(" (", NameOf(X509_get_subject_name(certificate)), ", signed by ",
                      NameOf(X509_get_issuer_name(certificate)), ", valid until ",
                      absl::FormatTime(absl::FromTM(utc, absl::UTCTimeZone()), absl::UTCTimeZone()),
                      ")");
}

// What this handshake found; empty if TLS is not the reason.
std::string Handshake(int fd, const HostPort& address, const TlsConfig& tls) {
  const bool encrypted = !tls.server_ca().empty();
  const Owned<SSL_CTX> context(SSL_CTX_new(TLS_client_method()));
  if (encrypted) {
    SSL_CTX_load_verify_locations(context.get(), tls.server_ca().c_str(), nullptr);
    if (!tls.certificate().empty()) {
      SSL_CTX_use_certificate_chain_file(context.get(), tls.certificate().c_str());
      SSL_CTX_use_PrivateKey_file(context.get(), tls.private_key().c_str(), SSL_FILETYPE_PEM);
    }
  }
  const Owned<SSL> connection(SSL_new(context.get()));
  const std::string name =
      tls.server_name_override().empty() ? address.host : tls.server_name_override();
  X509_VERIFY_PARAM* wanted = SSL_get0_param(connection.get());
  if (X509_VERIFY_PARAM_set1_ip_asc(wanted, name.c_str()) != 1) {
    X509_VERIFY_PARAM_set1_host(wanted, name.data(), name.size());
    SSL_set_tlsext_host_name(connection.get(), name.c_str());
  }
  constexpr unsigned char kHttp2[] = {2, 'h', '2'};
  SSL_set_alpn_protos(connection.get(), kHttp2, sizeof(kHttp2));
  SSL_set_fd(connection.get(), fd);
  const bool connected = SSL_connect(connection.get()) == 1;
  const Owned<X509> certificate(SSL_get1_peer_certificate(connection.get()));
  if (certificate == nullptr) {
    return encrypted ? "the server there does not speak TLS, as this client does "
                       "(security.tls.server_ca)"
                     : "";
  }
  if (!encrypted) {
    return "the server there speaks TLS, this client plain text: expected security.tls.server_ca, "
           "the authorities that sign the server's certificate";
  }
  const long verified = SSL_get_verify_result(connection.get());
  if (verified != X509_V_OK) {
    return absl::StrCat("the server's certificate", Describe(certificate.get()),
                        " is refused: ", X509_verify_cert_error_string(verified),
                        "; expected one for ", name, ", signed by one of ", tls.server_ca());
  }
  // The server speaks first. One that refuses the client's certificate says so instead.
  char byte = 0;
  if (connected && SSL_read(connection.get(), &byte, 1) == 1) return "";
  if (tls.certificate().empty()) {
    return "the server ended the handshake; it may ask for a client's certificate "
           "(security.tls.certificate), of which this client has none";
  }
  return absl::StrCat("the server refuses this client's certificate, ", tls.certificate(),
                      ": expected one that has not expired, signed by one of the server's "
                      "security.tls.client_ca");
}

}  // namespace

absl::Status ExplainConnection(const absl::Status& error, const std::string& address,
                               const TlsConfig& tls, absl::Duration patience) {
  if (!absl::IsUnavailable(error) && !absl::IsDeadlineExceeded(error)) return error;
  const auto target = ParseHostPort(address);
  if (!target.ok()) return error;
  const int fd = Connect(*target, patience);
  if (fd < 0) return error;
  const absl::Cleanup closer = [fd] { close(fd); };
  const WithoutSigpipe without_sigpipe;
  const std::string finding = Handshake(fd, *target, tls);
  ERR_clear_error();
  if (finding.empty()) return error;
  return absl::Status(error.code(), absl::StrCat(error.message(), "; ", finding));
}

}  // namespace ddpo
