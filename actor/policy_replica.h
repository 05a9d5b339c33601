#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "actor/learner_client.h"
#include "actor/policy_assembler.h"
#include "common/metrics/actor_metrics.h"

namespace ddpo {

struct PolicyReplicaOptions {
  // Versions that are held; the oldest leave first.
  size_t keep = 4;
  // A subscription is renewed after this time.
  absl::Duration subscription = absl::Minutes(10);
  // How long to wait for a version to come by itself before asking for it.
  absl::Duration patience = absl::Seconds(2);
  // Pause after a broken subscription; doubles up to the maximum.
  absl::Duration first_pause = absl::Milliseconds(50);
  absl::Duration max_pause = absl::Seconds(2);
};

// The newest policy versions, kept up to date by a subscription. Versions whose bytes don't have
// their digest are never held. Thread-safe.
class PolicyReplica {
 public:
  // The client and the metrics outlive it. Subscribes from the first Reset on.
  PolicyReplica(LearnerClient* learner, ActorMetrics* metrics, const PolicyReplicaOptions& options);
  ~PolicyReplica();

  // Forgets all versions and subscribes anew, as after a registration: another generation's version
  // of the same number may be other weights.
  void Reset();

  // The version, once it is here; asks the learner for it if it does not come. CANCELLED when
  // `cancelled`, asked many times a second, answers true; NOT_FOUND if the learner has it no more;
  // other errors are the last one of the learner. One try, which ends when nothing comes for the
  // client's call_timeout.
  absl::StatusOr<std::shared_ptr<const Policy>> WaitFor(int64_t version,
                                                        const std::function<bool()>& cancelled);

 private:
  void Run();
  // Keeps the policy, unless it was asked for before the last Reset: then it is of a generation
  // that is over.
  void Add(std::shared_ptr<const Policy> policy, int64_t resets);
  bool ResetOrEnding(int64_t resets) const;

  LearnerClient* const learner_;
  ActorMetrics* const metrics_;
  const PolicyReplicaOptions options_;
  mutable absl::Mutex mutex_;
  std::map<int64_t, std::shared_ptr<const Policy>> versions_ ABSL_GUARDED_BY(mutex_);
  int64_t resets_ ABSL_GUARDED_BY(mutex_) = 0;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace ddpo
