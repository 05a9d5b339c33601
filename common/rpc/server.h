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

namespace ddpo {

struct RpcServerOptions {
  // HOST:PORT; port 0 takes any that is free.
  std::string listen = "127.0.0.1:0";
  // Plain text is spoken on loopback only, unless this asks for it.
  bool allow_plain_text_anywhere = false;
  int max_message_bytes = kMaxMessageBytes;
  // Gets the address once the server listens: HOST:PORT and a newline, written atomically. Empty
  // for none.
  std::string address_file = "";
};

// A gRPC server with health checking (grpc.health.v1, for the server as a whole and for each
// service by name) and reflection.
class RpcServer {
 public:
  // The services outlive the server. INVALID_ARGUMENT for an address that cannot be or plain text
  // beyond loopback; UNAVAILABLE if the port is taken.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(
      const RpcServerOptions& options, const std::vector<grpc::Service*>& services);
  // Shuts down at once.
  ~RpcServer();

  // HOST:PORT, with the port that was taken.
  const std::string& address() const { return address_; }

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

  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace ddpo
