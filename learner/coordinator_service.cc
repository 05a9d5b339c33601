#include "learner/coordinator_service.h"

#include <utility>

#include "common/rpc/status.h"

namespace ddpo {
namespace {

grpc::ServerUnaryReactor* FinishNow(grpc::CallbackServerContext* context,
                                    const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

template <typename Response>
grpc::ServerUnaryReactor* FinishNow(grpc::CallbackServerContext* context,
                                    absl::StatusOr<Response> result, Response* response) {
  if (result.ok()) *response = *std::move(result);
  return FinishNow(context, result.status());
}

// A LeaseTask that may have to wait. Deletes itself.
class LeaseReactor : public grpc::ServerUnaryReactor {
 public:
  LeaseReactor(Coordinator* coordinator, const cluster::v1::LeaseTaskRequest& request,
               cluster::v1::LeaseTaskResponse* response)
      : coordinator_(coordinator) {
    coordinator->LeaseTask(
        request, this,
        [this, response](const absl::Status& status, cluster::v1::LeaseTaskResponse answer) {
          *response = std::move(answer);
          Finish(ToGrpcStatus(status));
        });
  }

  void OnCancel() override { coordinator_->StopWaiting(this); }
  void OnDone() override { delete this; }

 private:
  Coordinator* const coordinator_;
};

}  // namespace

grpc::ServerUnaryReactor* CoordinatorService::Register(grpc::CallbackServerContext* context,
                                                       const cluster::v1::RegisterRequest* request,
                                                       cluster::v1::RegisterResponse* response) {
  return FinishNow(context, coordinator_->Register(*request), response);
}

grpc::ServerUnaryReactor* CoordinatorService::LeaseTask(
    grpc::CallbackServerContext*, const cluster::v1::LeaseTaskRequest* request,
    cluster::v1::LeaseTaskResponse* response) {
  return new LeaseReactor(coordinator_, *request, response);
}

grpc::ServerUnaryReactor* CoordinatorService::RenewLeases(
    grpc::CallbackServerContext* context, const cluster::v1::RenewLeasesRequest* request,
    cluster::v1::RenewLeasesResponse* response) {
  return FinishNow(context, coordinator_->RenewLeases(*request), response);
}

grpc::ServerUnaryReactor* CoordinatorService::FailTask(grpc::CallbackServerContext* context,
                                                       const cluster::v1::FailTaskRequest* request,
                                                       cluster::v1::FailTaskResponse*) {
  return FinishNow(context, coordinator_->FailTask(*request));
}

grpc::ServerUnaryReactor* CoordinatorService::CompleteTask(
    grpc::CallbackServerContext* context, const cluster::v1::CompleteTaskRequest* request,
    cluster::v1::CompleteTaskResponse*) {
  return FinishNow(context, coordinator_->CompleteTask(*request));
}

grpc::ServerUnaryReactor* CoordinatorService::GetStatus(grpc::CallbackServerContext* context,
                                                        const cluster::v1::GetStatusRequest*,
                                                        cluster::v1::GetStatusResponse* response) {
  *response = monitor_->Status();
  return FinishNow(context, absl::OkStatus());
}

}  // namespace ddpo
