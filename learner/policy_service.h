#pragma once

#include "ddpo/cluster/v1/cluster.grpc.pb.h"
#include "learner/coordinator.h"
#include "learner/policy_store.h"

namespace ddpo {

// Sends policy versions to actors and takes their acknowledgements.
class PolicyService : public cluster::v1::PolicyPublisher::CallbackService {
 public:
  // Both outlive the service.
  PolicyService(Coordinator* coordinator, PolicyStore* store)
      : coordinator_(coordinator), store_(store) {}

  grpc::ServerWriteReactor<cluster::v1::PolicyChunk>* Subscribe(
      grpc::CallbackServerContext* context, const cluster::v1::SubscribeRequest* request) override;
  grpc::ServerWriteReactor<cluster::v1::PolicyChunk>* FetchPolicy(
      grpc::CallbackServerContext* context,
      const cluster::v1::FetchPolicyRequest* request) override;
  grpc::ServerUnaryReactor* AckPolicy(grpc::CallbackServerContext* context,
                                      const cluster::v1::AckPolicyRequest* request,
                                      cluster::v1::AckPolicyResponse* response) override;

 private:
  Coordinator* const coordinator_;
  PolicyStore* const store_;
};

}  // namespace ddpo
