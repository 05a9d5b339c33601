#include "learner/ingest_service.h"

#include <utility>

#include "common/base/kill_point.h"
#include "common/rpc/status.h"

namespace ddpo {
namespace {

using cluster::v1::SampleAck;
using cluster::v1::TrajectorySample;

// Reads a sample, offers it, writes the ack, and so on. One operation is under way at a time, so
// nothing needs a lock. Deletes itself.
class DeliverReactor : public grpc::ServerBidiReactor<TrajectorySample, SampleAck> {
 public:
  DeliverReactor(Coordinator* coordinator, TrajectoryBuffer* buffer)
      : coordinator_(coordinator), buffer_(buffer) {
    StartRead(&sample_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::OK);  // the actor has nothing more to send, or is gone
    TrajectoryBuffer::Answer answer = buffer_->Offer(sample_, coordinator_->generation());
    if (sample_.generation() != coordinator_->generation()) {
      return Finish(ToGrpcStatus(absl::FailedPreconditionError(answer.ack.message())));
    }
    if (answer.task_complete) coordinator_->Complete(sample_.task_id());
    ack_ = std::move(answer.ack);
    KillPoint("ingest.before_ack");
    StartWrite(&ack_);
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::OK);
    KillPoint("ingest.after_ack");
    StartRead(&sample_);
  }

  void OnDone() override { delete this; }

 private:
  Coordinator* const coordinator_;
  TrajectoryBuffer* const buffer_;
  TrajectorySample sample_;
  SampleAck ack_;
};

}  // namespace

grpc::ServerBidiReactor<TrajectorySample, SampleAck>* IngestService::Deliver(
    grpc::CallbackServerContext*) {
  return new DeliverReactor(coordinator_, buffer_);
}

}  // namespace ddpo
