#include "tools/status/cluster_status.h"

#include <grpcpp/grpcpp.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
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

std::string ClusterStatusText(const GetStatusResponse& status) {
  std::string text =
      absl::StrFormat("run %s, generation %d\nepoch    %d of %d\npolicy   version %d\nphase    %s",
                      status.run_id(), status.generation(), status.epoch(), status.epochs_total(),
                      status.policy_version(), status.phase());
  if (status.phase_total() > 0) {
    absl::StrAppend(&text, " ", status.phase_done(), "/", status.phase_total());
  }
  const cluster::v1::Ledger& ledger = status.ledger();
  absl::StrAppendFormat(&text, "\nsamples  %d received, %d trained, %d buffered", ledger.received(),
                        ledger.trained(), ledger.buffered());
  for (const auto& [reason, count] : ledger.dropped()) {
    absl::StrAppend(&text, ", ", count, " dropped (", reason, ")");
  }
  absl::StrAppend(&text, "\n");
  for (const cluster::v1::ActorStatus& actor : status.actors()) {
    absl::StrAppendFormat(&text, "%-16s version %-5d %7d samples  heard of %.1f s ago  %s\n",
                          actor.actor_id(), actor.policy_version(), actor.samples_delivered(),
                          actor.last_seen_seconds(), absl::StrJoin(actor.task_ids(), " "));
  }
  if (!status.error().empty()) absl::StrAppend(&text, "error    ", status.error(), "\n");
  return text;
}

}  // namespace ddpo
