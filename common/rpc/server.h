#pragma once

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rpc/channel.h"
#include "ddpo/config/v1/security.pb.h"

namespace ddpo {

struct RpcServerOptions {
  // HOST:PORT; port 0 takes any that is free.
  std::string listen = "127.0.0.1:0";
  // Plain text, which is spoken where `tls` has no certificate, is spoken on loopback only, unless
  // this asks for it.
  bool allow_plain_text_anywhere = false;
  // Compressed messages, whose size is not known before they are unfolded, are refused.
  int max_message_bytes = kMaxMessageBytes;
  // Gets the address once the server listens: HOST:PORT and a newline, written atomically. Empty
  // for none.
  std::string address_file = "";
  // As in CreateServerCredentials.
  config::v1::TlsConfig tls = {};
  std::string tokens_file = "";
  // Another HOST:PORT, where health checks are answered in plain text, and nothing but them and
  // reflection: for probes that speak nothing else, as Kubernetes'. Empty for none.
  std::string health_listen = "";
};

// A gRPC server with health checking (grpc.health.v1, for the server as a whole and for each
// service by name) and reflection.
class RpcServer {
 public:
  // The services outlive the server. INVALID_ARGUMENT for an address that cannot be, and as
  // CreateServerCredentials; UNAVAILABLE if the port is taken.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(
      const RpcServerOptions& options, const std::vector<grpc::Service*>& services);
  // Shuts down at once.
  ~RpcServer();

  // HOST:PORT, with the port that was taken.
  const std::string& address() const { return address_; }
  // Of `health_listen`; empty without it.
  const std::string& health_address() const { return health_address_; }

  // Says NOT_SERVING to health checks; calls are still served.
  void SetNotServing();
  // What health checks for this name hear; it need not be a service's. For what a probe has to know
  // beyond whether calls are served.
  void SetServing(const std::string& name, bool serving);
  // SetNotServing, then refuses new calls and lets those under way end until the deadline, when
  // they are cancelled.
  void Drain(absl::Duration deadline);

 private:
  RpcServer() = default;

  absl::Status StartHealthServer(const RpcServerOptions& options);
  // The servers that answer health checks.
  std::vector<grpc::Server*> HealthServers() const;

  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<grpc::Server> health_server_;
  std::string address_;
  std::string health_address_;
};

}  // namespace ddpo
