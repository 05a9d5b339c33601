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

Housekeeping::Housekeeping(const HousekeepingParts& parts) : parts_(parts) {
  Look();
  thread_ = std::thread([this] { Run(); });
}

Housekeeping::~Housekeeping() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
  }
  thread_.join();
}

void Housekeeping::Run() {
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&ending_), kTick)) return;
    }
    Look();
  }
}

void Housekeeping::Look() {
  parts_.coordinator->Tick();
  UpdateMetrics();
  parts_.rpc->SetServing(kProgressHealth, parts_.monitor->SinceBeat() < parts_.stall);
}

void Housekeeping::UpdateMetrics() {
  const cluster::v1::Ledger ledger = parts_.buffer->ledger();
  RaiseTo(parts_.metrics->samples_received, ledger.received());
  RaiseTo(parts_.metrics->samples_trained, ledger.trained());
  for (const auto& [reason, count] : ledger.dropped()) {
    RaiseTo(parts_.metrics->samples_dropped[reason], count);
  }
  parts_.metrics->samples_buffered.Set(static_cast<double>(ledger.buffered()));
  parts_.metrics->leases_outstanding.Set(static_cast<double>(parts_.coordinator->leases()));
  RaiseTo(parts_.metrics->leases_expired, parts_.coordinator->expired_leases());
  RaiseTo(parts_.metrics->tasks_failed, parts_.coordinator->failed_tasks());
  std::vector<int64_t> versions;
  for (const auto& actor : parts_.coordinator->LiveActors()) {
    versions.push_back(actor.policy_version());
  }
  parts_.metrics->SetActors(versions, parts_.coordinator->policy_version());
  parts_.metrics->progress_timestamp.Set(
      absl::ToDoubleSeconds(parts_.monitor->LastProgress() - absl::UnixEpoch()));
}

}  // namespace ddpo
