#include "common/rpc/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/impl/server_builder_plugin.h>
#include <grpcpp/impl/server_initializer.h>

#include <chrono>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/address.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/rpc/credentials.h"

namespace ddpo {
namespace {

void EnablePlugins() {
  static std::once_flag once;
  std::call_once(once, [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
}

// gRPC unfolds a compressed message before it looks at the limit: 1 MB can become a gigabyte. So
// compressed messages are refused, with UNIMPLEMENTED; what is large here, images and latents,
// would hardly get smaller.
void RefuseCompression(grpc::ServerBuilder* builder) {
  for (const auto algorithm : {GRPC_COMPRESS_DEFLATE, GRPC_COMPRESS_GZIP}) {
    builder->SetCompressionAlgorithmSupportStatus(algorithm, false);
  }
}

// Tells the names of the services that a builder registers, as reflection does.
class ServiceNames : public grpc::ServerBuilderPlugin {
 public:
  explicit ServiceNames(std::vector<std::string>* names) : names_(names) {}

  std::string name() override { return "ddpo.service_names"; }
  void InitServer(grpc::ServerInitializer*) override {}
  void Finish(grpc::ServerInitializer* initializer) override {
    *names_ = *initializer->GetServiceList();
  }
  void ChangeArguments(const std::string&, void*) override {}

 private:
  std::vector<std::string>* const names_;
};

class ServiceNamesOption : public grpc::ServerBuilderOption {
 public:
  explicit ServiceNamesOption(std::vector<std::string>* names) : names_(names) {}

  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    plugins->push_back(std::make_unique<ServiceNames>(names_));
  }

 private:
  std::vector<std::string>* const names_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(
    const RpcServerOptions& options, const std::vector<grpc::Service*>& services) {
  DDPO_ASSIGN_OR_RETURN(HostPort listen, ParseHostPort(options.listen));
  DDPO_ASSIGN_OR_RETURN(const auto credentials,
                        CreateServerCredentials(options.tls, options.tokens_file, listen,
                                                options.allow_plain_text_anywhere));
  EnablePlugins();
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(options.listen, credentials, &port);
  builder.SetMaxReceiveMessageSize(options.max_message_bytes);
  builder.SetMaxSendMessageSize(options.max_message_bytes);
  RefuseCompression(&builder);
  // Two servers on one port would share its calls in silence.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // As in CreateChannel, whose pings, every 20 s, must not be taken for an attack.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 20000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  for (grpc::Service* service : services) builder.RegisterService(service);
  std::vector<std::string> names;
  builder.SetOption(std::make_unique<ServiceNamesOption>(&names));
  auto server = std::unique_ptr<RpcServer>(new RpcServer());
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr || port == 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", options.listen));
  }
  if (!options.health_listen.empty()) DDPO_RETURN_IF_ERROR(server->StartHealthServer(options));
  // By itself the health service knows the server as a whole only.
  for (const std::string& name : names) server->SetServing(name, true);
  listen.port = port;
  server->address_ = listen.ToString();
  if (!options.address_file.empty()) {
    DDPO_RETURN_IF_ERROR(WriteFileAtomically(options.address_file, server->address_ + "\n"));
  }
  return server;
}

absl::Status RpcServer::StartHealthServer(const RpcServerOptions& options) {
  DDPO_ASSIGN_OR_RETURN(HostPort listen, ParseHostPort(options.health_listen));
  DDPO_ASSIGN_OR_RETURN(const auto plain_text,
                        CreateServerCredentials({}, "", listen, options.allow_plain_text_anywhere));
  grpc::ServerBuilder builder;
  builder.AddListeningPort(options.health_listen, plain_text, &listen.port);
  RefuseCompression(&builder);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  health_server_ = builder.BuildAndStart();
  if (health_server_ == nullptr || listen.port == 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", options.health_listen));
  }
  health_address_ = listen.ToString();
  return absl::OkStatus();
}

std::vector<grpc::Server*> RpcServer::HealthServers() const {
  if (health_server_ == nullptr) return {server_.get()};
  return {server_.get(), health_server_.get()};
}

RpcServer::~RpcServer() {
  if (server_ != nullptr) Drain(absl::ZeroDuration());
}

void RpcServer::SetNotServing() {
  for (grpc::Server* server : HealthServers()) {
    server->GetHealthCheckService()->SetServingStatus(false);
  }
}

void RpcServer::SetServing(const std::string& name, bool serving) {
  for (grpc::Server* server : HealthServers()) {
    server->GetHealthCheckService()->SetServingStatus(name, serving);
  }
}

void RpcServer::Drain(absl::Duration deadline) {
  SetNotServing();
  server_->Shutdown(absl::ToChronoTime(absl::Now() + deadline));
  server_->Wait();
  if (health_server_ == nullptr) return;
  health_server_->Shutdown(absl::ToChronoTime(absl::Now()));
  health_server_->Wait();
}

}  // namespace ddpo
