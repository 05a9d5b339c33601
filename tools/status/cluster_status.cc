#include "tools/status/cluster_status.h"

#include <grpcpp/grpcpp.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "ddpo/cluster/v1/cluster.grpc.pb.h"

namespace ddpo {

using cluster::v1::GetStatusResponse;

absl::StatusOr<GetStatusResponse> FetchClusterStatus(const std::string& address,
                                                     const config::v1::TlsConfig& tls,
                                                     std::chrono::milliseconds deadline) {
  DDPO_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel,
                        CreateChannel(address, {.tls = tls}));
  std::unique_ptr<cluster::v1::Coordinator::Stub> stub = cluster::v1::Coordinator::NewStub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + deadline);
  GetStatusResponse response;
  const grpc::Status status = stub->GetStatus(&context, {}, &response);
  if (!status.ok()) {
    const absl::Status error = FromGrpcStatus(status);
    return absl::Status(error.code(), absl::StrCat("no answer from the learner at ", address, ": ",
                                                   error.message()));
  }
  return response;
}

}  // namespace ddpo
