#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "actor/call_registry.h"
#include "actor/policy_assembler.h"
#include "ddpo/cluster/v1/cluster.grpc.pb.h"
#include "ddpo/config/v1/security.pb.h"

namespace ddpo {

struct LearnerClientOptions {
  std::string address;  // HOST:PORT
  std::string actor_id;
  // Random for each start of the actor.
  uint64_t incarnation = 0;
  // Deadline of a call that does not wait for something by itself; for a policy, of each of its
  // chunks.
  absl::Duration call_timeout = absl::Seconds(20);
  // As in ChannelOptions.
  config::v1::TlsConfig tls = {};
};

// The learner as an actor sees it: one attempt for each call, with the actor's identity and the
// generation of its last registration. Thread-safe.
//
// Every call may answer
//   FAILED_PRECONDITION  the learner was started anew, or does not know this actor: register again
//   UNAVAILABLE          the learner is not there now
//   CANCELLED            after Abort
class LearnerClient {
 public:
  // Connects when first used. INVALID_ARGUMENT for an address without a port.
  static absl::StatusOr<std::unique_ptr<LearnerClient>> Create(const LearnerClientOptions& options);

  // Says who we are and takes the learner's generation. An empty digest asks for the configuration
  // only.
  absl::StatusOr<cluster::v1::RegisterResponse> Register(const std::string& model_digest);
  uint64_t generation() const;

  // Waits for a task, at most that long.
  absl::StatusOr<cluster::v1::LeaseTaskResponse> LeaseTask(absl::Duration wait);
  // Makes a LeaseTask that waits return CANCELLED.
  void StopWaitingForTask();

  // The leases, of the given ones, that are lost.
  absl::StatusOr<std::vector<uint64_t>> RenewLeases(const std::vector<uint64_t>& lease_ids);
  absl::Status FailTask(const std::string& task_id, uint64_t lease_id, uint64_t generation,
                        const absl::Status& why);
  absl::Status CompleteTask(const std::string& task_id, uint64_t generation);
  absl::Status AckPolicy(int64_t version, const std::string& sha256);

  // One version, however long it takes to come. NOT_FOUND if the learner has it no more or not yet;
  // DATA_LOSS if it came damaged; DEADLINE_EXCEEDED if it stays away; CANCELLED soon after
  // `cancelled`, asked many times a second, answers true.
  absl::StatusOr<Policy> FetchPolicy(int64_t version, const std::function<bool()>& cancelled = {});
  // Calls back for each version newer than `have_version`, until the stream ends: always with an
  // error, DEADLINE_EXCEEDED after `duration`. `cancelled` is asked once, when CancelStreams can
  // end the stream already: who sets first what it looks at and then calls CancelStreams is not
  // missed.
  absl::Status Subscribe(int64_t have_version, absl::Duration duration,
                         const std::function<void(Policy)>& on_policy,
                         const std::function<bool()>& cancelled = {});

  // Sends samples to the TrajectoryIngest at `address` (empty: the coordinator's own), in windows
  // of a few without an ack, and calls back for each ack. OK once every sample is acked, however
  // the stream then ends, and at once without samples. CANCELLED soon after `cancelled`, asked many
  // times a second, answers true.
  absl::Status Deliver(const std::string& address,
                       const std::vector<const cluster::v1::TrajectorySample*>& samples,
                       absl::Duration timeout,
                       const std::function<void(const cluster::v1::SampleAck&)>& on_ack,
                       const std::function<bool()>& cancelled = {});

  // Ends the streams that are open, as for another generation.
  void CancelStreams() { streams_.CancelAll(); }
  // Ends all calls, now and later.
  void Abort();

 private:
  explicit LearnerClient(const LearnerClientOptions& options) : options_(options) {}

  template <typename Request>
  Request WithSender() const;
  absl::StatusOr<cluster::v1::TrajectoryIngest::StubInterface*> Ingest(const std::string& address);
  // A cancellation that is not ours is the learner going away.
  absl::Status ToStatus(const grpc::Status& status, const CallRegistry& registry) const;

  const LearnerClientOptions options_;
  std::unique_ptr<cluster::v1::Coordinator::StubInterface> coordinator_;
  std::unique_ptr<cluster::v1::PolicyPublisher::StubInterface> publisher_;
  CallRegistry calls_;
  CallRegistry waiting_;  // LeaseTask
  CallRegistry streams_;  // Subscribe
  mutable absl::Mutex mutex_;
  uint64_t generation_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, std::unique_ptr<cluster::v1::TrajectoryIngest::StubInterface>> ingests_
      ABSL_GUARDED_BY(mutex_);  // by address
};

}  // namespace ddpo
