#include "learner/run_monitor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "learner/ledger.h"

namespace ddpo {

RunMonitor::RunMonitor(const Coordinator* coordinator, const TrajectoryBuffer* buffer,
                       int64_t epochs_total, std::map<std::string, int64_t> failures, Clock* clock)
    : coordinator_(coordinator),
      buffer_(buffer),
      epochs_total_(epochs_total),
      failures_(std::move(failures)),
      clock_(clock),
      beat_(clock->Now()),
      progress_(beat_) {}

void RunMonitor::Enter(const std::string& phase, int64_t epoch) {
  absl::MutexLock lock(&mutex_);
  phase_ = phase;
  epoch_ = epoch;
  beat_ = clock_->Now();
}

void RunMonitor::Beat() {
  absl::MutexLock lock(&mutex_);
  beat_ = clock_->Now();
}

absl::Duration RunMonitor::SinceBeat() const {
  absl::MutexLock lock(&mutex_);
  return clock_->Now() - beat_;
}

void RunMonitor::SetCheckpoint(int64_t epochs, bool written) {
  absl::MutexLock lock(&mutex_);
  checkpoint_epochs_ = epochs;
  if (written) checkpoint_time_ = clock_->Now();
}

absl::Time RunMonitor::LastProgress() {
  const int64_t received = buffer_->ledger().received();
  const int64_t version = coordinator_->policy_version();
  absl::MutexLock lock(&mutex_);
  std::string mark = absl::StrCat(received, " ", version, " ", epoch_, " ", phase_);
  if (mark != progress_mark_) {
    progress_mark_ = std::move(mark);
    progress_ = clock_->Now();
  }
  return progress_;
}

void RunMonitor::SetOtherRanks(std::vector<cluster::v1::RankProgress> others) {
  absl::MutexLock lock(&mutex_);
  others_ = std::move(others);
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
  std::vector<cluster::v1::RankProgress> ranks;
  {
    absl::MutexLock lock(&mutex_);
    ranks = others_;
    status.set_phase(phase_);
    status.set_epoch(epoch_);
    status.set_last_metrics_json(last_metrics_);
    status.set_error(error_);
    const absl::Time now = clock_->Now();
    status.set_progress_age_seconds(absl::ToDoubleSeconds(now - progress_));
    status.set_checkpoint_epochs(checkpoint_epochs_);
    status.set_checkpoint_age_seconds(checkpoint_time_ == absl::InfinitePast()
                                          ? -1
                                          : absl::ToDoubleSeconds(now - checkpoint_time_));
  }
  ranks.push_back(buffer_->Report(status.epoch()));
  std::map<std::string, int64_t> delivered;
  for (const cluster::v1::RankProgress& rank : ranks) {
    AddLedger(rank.ledger(), status.mutable_ledger());
    status.set_phase_done(status.phase_done() + rank.epoch_have());
    status.set_phase_total(status.phase_total() + rank.epoch_want());
    for (const auto& [actor, count] : rank.delivered()) delivered[actor] += count;
  }
  status.set_tasks_leased(coordinator_->leases());
  status.set_tasks_waiting(coordinator_->waiting_tasks());
  status.set_leases_expired(coordinator_->expired_leases());
  status.set_tasks_failed(coordinator_->failed_tasks());
  status.mutable_failures()->insert(failures_.begin(), failures_.end());
  for (cluster::v1::ActorStatus& actor : coordinator_->ActorStatuses()) {
    if (const auto count = delivered.find(actor.actor_id()); count != delivered.end()) {
      actor.set_samples_delivered(count->second);
    }
    *status.add_actors() = std::move(actor);
  }
  return status;
}

}  // namespace ddpo
