#pragma once

#include "ddpo/cluster/v1/cluster.grpc.pb.h"
#include "learner/coordinator.h"
#include "learner/run_monitor.h"

namespace ddpo {

// Coordinator over gRPC. No call holds a thread.
class CoordinatorService : public cluster::v1::Coordinator::CallbackService {
 public:
  // Both outlive the service.
  CoordinatorService(Coordinator* coordinator, const RunMonitor* monitor)
      : coordinator_(coordinator), monitor_(monitor) {}

  grpc::ServerUnaryReactor* Register(grpc::CallbackServerContext* context,
                                     const cluster::v1::RegisterRequest* request,
                                     cluster::v1::RegisterResponse* response) override;
  grpc::ServerUnaryReactor* LeaseTask(grpc::CallbackServerContext* context,
                                      const cluster::v1::LeaseTaskRequest* request,
                                      cluster::v1::LeaseTaskResponse* response) override;
  grpc::ServerUnaryReactor* RenewLeases(grpc::CallbackServerContext* context,
                                        const cluster::v1::RenewLeasesRequest* request,
                                        cluster::v1::RenewLeasesResponse* response) override;
  grpc::ServerUnaryReactor* FailTask(grpc::CallbackServerContext* context,
                                     const cluster::v1::FailTaskRequest* request,
                                     cluster::v1::FailTaskResponse* response) override;
  grpc::ServerUnaryReactor* CompleteTask(grpc::CallbackServerContext* context,
                                         const cluster::v1::CompleteTaskRequest* request,
                                         cluster::v1::CompleteTaskResponse* response) override;
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context,
                                      const cluster::v1::GetStatusRequest* request,
                                      cluster::v1::GetStatusResponse* response) override;

 private:
  Coordinator* const coordinator_;
  const RunMonitor* const monitor_;
};

}  // namespace ddpo
