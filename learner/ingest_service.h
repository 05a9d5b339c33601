#pragma once

#include "ddpo/cluster/v1/cluster.grpc.pb.h"
#include "learner/coordinator.h"
#include "learner/trajectory_buffer.h"

namespace ddpo {

// Takes trajectories over. A stream's next sample is read only when the ack of the last is on its
// way, so that a stream holds one sample in memory besides what the buffer has taken.
class IngestService : public cluster::v1::TrajectoryIngest::CallbackService {
 public:
  // Both outlive the service.
  IngestService(Coordinator* coordinator, TrajectoryBuffer* buffer)
      : coordinator_(coordinator), buffer_(buffer) {}

  grpc::ServerBidiReactor<cluster::v1::TrajectorySample, cluster::v1::SampleAck>* Deliver(
      grpc::CallbackServerContext* context) override;

 private:
  Coordinator* const coordinator_;
  TrajectoryBuffer* const buffer_;
};

}  // namespace ddpo
