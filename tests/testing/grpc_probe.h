#pragma once

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/client_unary_call.h>
#include <grpcpp/support/sync_stream.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

namespace ddpo::testing {

// The standard services that every server has, spoken in raw bytes: the distributions' gRPC ships
// their implementation but not their generated clients.

inline grpc::ByteBuffer ToByteBuffer(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

inline std::string ToString(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  (void)buffer.Dump(&slices);
  std::string bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

// grpc.health.v1.Health/Check for a service by name; "" asks for the server as a whole. "SERVING",
// "NOT_SERVING", or the error's message.
inline std::string CheckHealth(const std::shared_ptr<grpc::Channel>& channel,
                               const std::string& service) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  context.set_wait_for_ready(true);
  // HealthCheckRequest { string service = 1; }
  const std::string request =
      service.empty() ? "" : "\x0a" + std::string(1, static_cast<char>(service.size())) + service;
  grpc::ByteBuffer response;
  const grpc::internal::RpcMethod method("/grpc.health.v1.Health/Check",
                                         grpc::internal::RpcMethod::NORMAL_RPC);
  const grpc::Status status = grpc::internal::BlockingUnaryCall(channel.get(), method, &context,
                                                                ToByteBuffer(request), &response);
  if (!status.ok()) return status.error_message();
  // HealthCheckResponse { ServingStatus status = 1; } with SERVING = 1, NOT_SERVING = 2.
  const std::string bytes = ToString(response);
  if (bytes == std::string("\x08\x01")) return "SERVING";
  if (bytes == std::string("\x08\x02")) return "NOT_SERVING";
  return "unknown answer";
}

// What grpc.reflection.v1alpha.ServerReflection says to a request, in protobuf's wire format; empty
// on an error.
inline std::string AskReflection(const std::shared_ptr<grpc::Channel>& channel,
                                 const std::string& request) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  context.set_wait_for_ready(true);
  const grpc::internal::RpcMethod method(
      "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
      grpc::internal::RpcMethod::BIDI_STREAMING);
  std::unique_ptr<grpc::ClientReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>> stream(
      grpc::internal::ClientReaderWriterFactory<grpc::ByteBuffer, grpc::ByteBuffer>::Create(
          channel.get(), method, &context));
  grpc::ByteBuffer response;
  if (!stream->Write(ToByteBuffer(request)) || !stream->Read(&response)) return "";
  stream->WritesDone();
  (void)stream->Finish();
  return ToString(response);
}

// The answer to ServerReflectionRequest { list_services = 7: "" }, which holds the services' names.
inline std::string ListServices(const std::shared_ptr<grpc::Channel>& channel) {
  return AskReflection(channel, std::string("\x3a\x00", 2));
}

}  // namespace ddpo::testing
