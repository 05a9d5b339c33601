#include "learner/run_monitor.h"

namespace ddpo {

void RunMonitor::Enter(const std::string& phase, int64_t epoch) {
  absl::MutexLock lock(&mutex_);
  phase_ = phase;
  epoch_ = epoch;
}

void RunMonitor::SetLastMetrics(const std::string& json) {
  absl::MutexLock lock(&mutex_);
  last_metrics_ = json;
}

void RunMonitor::SetError(const std::string& error) {
  absl::MutexLock lock(&mutex_);
  phase_ = "failed";
  error_ = error;
}

cluster::v1::GetStatusResponse RunMonitor::Status() const {
  cluster::v1::GetStatusResponse status;
  status.set_run_id(coordinator_->run_id());
  status.set_generation(coordinator_->generation());
  status.set_policy_version(coordinator_->policy_version());
  status.set_epochs_total(epochs_total_);
  *status.mutable_ledger() = buffer_->ledger();
  {
    absl::MutexLock lock(&mutex_);
    status.set_phase(phase_);
    status.set_epoch(epoch_);
    status.set_last_metrics_json(last_metrics_);
    status.set_error(error_);
  }
  const TrajectoryBuffer::Progress progress = buffer_->EpochProgress(status.epoch());
  status.set_phase_done(progress.have);
  status.set_phase_total(progress.want);
  const auto delivered = buffer_->delivered();
  for (cluster::v1::ActorStatus& actor : coordinator_->ActorStatuses()) {
    if (const auto count = delivered.find(actor.actor_id()); count != delivered.end()) {
      actor.set_samples_delivered(count->second);
    }
    *status.add_actors() = std::move(actor);
  }
  return status;
}

}  // namespace ddpo
