#include "learner/housekeeping.h"

#include <cstdint>
#include <vector>

#include "absl/time/time.h"

namespace ddpo {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(50);

// A resumed run's ledger goes on where it was, and so do these counters.
void RaiseTo(prometheus::Counter& counter, int64_t value) {
  const double increase = static_cast<double>(value) - counter.Value();
  if (increase > 0) counter.Increment(increase);
}

}  // namespace

Housekeeping::Housekeeping(Coordinator* coordinator, const TrajectoryBuffer* buffer,
                           LearnerMetrics* metrics)
    : coordinator_(coordinator), buffer_(buffer), metrics_(metrics), thread_([this] { Run(); }) {}

Housekeeping::~Housekeeping() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
  }
  thread_.join();
}

void Housekeeping::Run() {
  while (true) {
    coordinator_->Tick();
    UpdateMetrics();
    absl::MutexLock lock(&mutex_);
    if (mutex_.AwaitWithTimeout(absl::Condition(&ending_), kTick)) return;
  }
}

void Housekeeping::UpdateMetrics() {
  const cluster::v1::Ledger ledger = buffer_->ledger();
  RaiseTo(metrics_->samples_received, ledger.received());
  RaiseTo(metrics_->samples_trained, ledger.trained());
  for (const auto& [reason, count] : ledger.dropped()) {
    RaiseTo(metrics_->samples_dropped[reason], count);
  }
  metrics_->samples_buffered.Set(static_cast<double>(ledger.buffered()));
  metrics_->leases_outstanding.Set(static_cast<double>(coordinator_->leases()));
  RaiseTo(metrics_->leases_expired, coordinator_->expired_leases());
  RaiseTo(metrics_->tasks_failed, coordinator_->failed_tasks());
  std::vector<int64_t> versions;
  for (const auto& actor : coordinator_->ActorStatuses()) {
    versions.push_back(actor.policy_version());
  }
  metrics_->SetActors(versions, coordinator_->policy_version());
}

}  // namespace ddpo
