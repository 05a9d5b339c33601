#include "tools/health/health_check.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/client_unary_call.h>

#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/status_macros.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "common/rpc/tls_diagnosis.h"

namespace ddpo {
namespace {

// Field 1, length-delimited: HealthCheckRequest { string service = 1; }. The distributions' gRPC
// ships the service's implementation but not its generated client.
constexpr char kServiceTag = 0x0a;
// The length is one byte in protobuf's encoding up to here.
constexpr size_t kLongestName = 127;
// HealthCheckResponse { ServingStatus status = 1; } with SERVING = 1.
constexpr char kServing[] = "\x08\x01";

std::string Bytes(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Valid() || !buffer.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

}  // namespace

absl::Status CheckHealth(const std::string& address, const std::string& service,
                         absl::Duration deadline, const config::v1::TlsConfig& tls) {
  if (service.size() > kLongestName) {
    return absl::InvalidArgumentError(
        absl::StrCat("the name of a service has at most ", kLongestName, " characters"));
  }
  DDPO_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel,
                        CreateChannel(address, {.tls = tls}));
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + deadline));
  // The first try to connect may fail on a loaded machine.
  context.set_wait_for_ready(true);
  std::string request;
  if (!service.empty()) {
    request = absl::StrCat(std::string(1, kServiceTag),
                           std::string(1, static_cast<char>(service.size())), service);
  }
  const grpc::Slice slice(request);
  grpc::ByteBuffer response;
  const grpc::internal::RpcMethod method("/grpc.health.v1.Health/Check",
                                         grpc::internal::RpcMethod::NORMAL_RPC);
  const grpc::Status answer = grpc::internal::BlockingUnaryCall(
      channel.get(), method, &context, grpc::ByteBuffer(&slice, 1), &response);
  const std::string what = service.empty() ? absl::StrCat("the server at ", address)
                                           : absl::StrCat(service, " at ", address);
  if (!answer.ok()) {
    const absl::Status error = ExplainConnection(FromGrpcStatus(answer), address, tls);
    const auto code =
        absl::IsNotFound(error) ? absl::StatusCode::kNotFound : absl::StatusCode::kUnavailable;
    return absl::Status(code, absl::StrCat(what, ": ", error.ToString()));
  }
  if (Bytes(response) == kServing) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(what, " is not serving"));
}

}  // namespace ddpo
