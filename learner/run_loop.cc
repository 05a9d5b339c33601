#include "learner/run_loop.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/base/kill_point.h"
#include "common/base/logging.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "learner/ledger.h"
#include "learner/non_finite.h"
#include "learner/rank_exchange.h"

namespace ddpo {
namespace {

// How often waiting is interrupted to look for a stop, a failed task and the other ranks.
constexpr absl::Duration kLook = absl::Milliseconds(100);

class Stopwatch {
 public:
  explicit Stopwatch(Clock* clock) : clock_(clock), start_(clock->Now()) {}
  double Seconds() const { return absl::ToDoubleSeconds(clock_->Now() - start_); }

 private:
  Clock* const clock_;
  const absl::Time start_;
};

}  // namespace

RunLoop::RunLoop(const config::v1::Config& config, RunParts parts, Clock* clock)
    : config_(config),
      parts_(parts),
      clock_(clock),
      checkpoint_writer_(parts.checkpoints, [parts, clock](const Checkpoint& checkpoint) {
        parts.monitor->SetCheckpoint(checkpoint.epochs_done, /*written=*/true);
        parts.metrics->checkpoint_epochs.Set(static_cast<double>(checkpoint.epochs_done));
        parts.metrics->checkpoint_timestamp.Set(
            absl::ToDoubleSeconds(clock->Now() - absl::UnixEpoch()));
      }) {}

absl::Status RunLoop::Restore(const std::optional<Checkpoint>& checkpoint) {
  cluster::v1::RankCheckpoint message;
  if (checkpoint.has_value()) {
    message.set_present(true);
    message.set_epochs_done(checkpoint->epochs_done);
    message.set_prompt_statistics(checkpoint->prompt_statistics);
    message.set_scorer_digest(checkpoint->scorer_digest);
  }
  DDPO_ASSIGN_OR_RETURN(const std::string bytes,
                        BroadcastFromRankZero(*parts_.collective, message.SerializeAsString()));
  if (!message.ParseFromString(bytes)) return absl::InternalError("rank 0 sent no checkpoint");
  if (!message.present()) return absl::OkStatus();
  DDPO_ASSIGN_OR_RETURN(
      const std::string trainer_state,
      BroadcastFromRankZero(*parts_.collective,
                            checkpoint.has_value() ? checkpoint->trainer_state : ""));
  DDPO_RETURN_IF_ERROR(parts_.trainer->RestoreState(trainer_state));
  DDPO_RETURN_IF_ERROR(parts_.statistics->RestoreState(message.prompt_statistics()));
  scorer_digest_ = message.scorer_digest();
  parts_.buffer->PinScorer(scorer_digest_);
  if (message.epochs_done() > 0) parts_.buffer->MarkDone(message.epochs_done() - 1);
  next_epoch_ = message.epochs_done();
  if (!checkpoint.has_value()) return absl::OkStatus();
  // The ledger of all ranks goes on in rank 0's.
  parts_.buffer->RestoreLedger(checkpoint->ledger);
  saved_epochs_ = checkpoint->epochs_done;
  parts_.monitor->SetCheckpoint(saved_epochs_, /*written=*/false);
  parts_.metrics->checkpoint_epochs.Set(static_cast<double>(saved_epochs_));
  elapsed_before_ = checkpoint->elapsed_seconds;
  restored_policies_ = checkpoint->policies;
  return absl::OkStatus();
}

absl::Status RunLoop::PlanUpTo(int64_t last_epoch) {
  std::vector<cluster::v1::RolloutTask> tasks;
  last_epoch = std::min<int64_t>(last_epoch, config_.run().epochs() - 1);
  for (; planned_epochs_ <= last_epoch; ++planned_epochs_) {
    for (auto& task : parts_.planner->PlanEpoch(planned_epochs_)) {
      parts_.buffer->Expect(task);
      task.set_ingest_address(ingest_addresses_[task.rank()]);
      tasks.push_back(std::move(task));
    }
  }
  // A task may go out only once its rank expects it.
  DDPO_RETURN_IF_ERROR(WaitForRanks());
  if (leads()) parts_.coordinator->AddTasks(tasks);
  return absl::OkStatus();
}

absl::Status RunLoop::Run(const std::function<bool()>& stopping) {
  start_ = clock_->Now();
  planned_epochs_ = next_epoch_;
  DDPO_ASSIGN_OR_RETURN(std::string policy, SerializePolicy());
  DDPO_ASSIGN_OR_RETURN(const std::vector<std::string> digests,
                        parts_.collective->AllGather(Sha256Hex(policy)));
  DDPO_RETURN_IF_ERROR(CheckRanksAlike("the policy at the start", digests));
  if (leads()) {
    // By the checkpoints' names: one that is damaged was written before the final policy all the
    // same, which then is the run's.
    DDPO_ASSIGN_OR_RETURN(const int64_t newest, parts_.checkpoints->NewestEpochs());
    if (newest < config_.run().epochs()) DDPO_RETURN_IF_ERROR(parts_.files->RemoveFinalPolicy());
    DDPO_RETURN_IF_ERROR(parts_.files->TruncateMetrics(next_epoch_));
    if (next_epoch_ == 0) DDPO_RETURN_IF_ERROR(parts_.files->WritePolicy(0, policy));
    for (auto& [version, bytes] : restored_policies_) {
      parts_.policies->Publish(version, std::move(bytes));
    }
    restored_policies_.clear();
    Publish(next_epoch_, std::move(policy));
  }
  while (next_epoch_ < config_.run().epochs()) {
    const absl::Status status = RunEpoch(next_epoch_, stopping);
    if (absl::IsCancelled(status)) {
      if (leads() && saved_epochs_ != next_epoch_) DDPO_RETURN_IF_ERROR(Save(next_epoch_));
      DDPO_RETURN_IF_ERROR(checkpoint_writer_.Wait());
      DDPO_RETURN_IF_ERROR(WaitForRanks());
      return status;
    }
    DDPO_RETURN_IF_ERROR(status);
    DDPO_RETURN_IF_ERROR(checkpoint_writer_.status());
    ++next_epoch_;
    const bool last = next_epoch_ == config_.run().epochs();
    if (leads() && (last || next_epoch_ % config_.checkpoint().every_epochs() == 0)) {
      DDPO_RETURN_IF_ERROR(Save(next_epoch_));
    }
  }
  if (leads()) {
    DDPO_RETURN_IF_ERROR(checkpoint_writer_.Wait());
    DDPO_ASSIGN_OR_RETURN(const std::string last, parts_.trainer->SerializeFinalPolicy());
    DDPO_RETURN_IF_ERROR(parts_.files->WriteFinalPolicy(last));
  }
  // The other ranks end only when all is written: a group of which one rank has ended well could
  // not start again as a whole.
  DDPO_RETURN_IF_ERROR(WaitForRanks());
  parts_.monitor->Enter("complete", next_epoch_);
  return absl::OkStatus();
}

void RunLoop::CountTimeWithRanks() {
  const absl::Duration time = parts_.collective->time_in_calls();
  parts_.metrics->idle_seconds["ranks"].Increment(
      absl::ToDoubleSeconds(time - std::exchange(counted_with_ranks_, time)));
}

absl::Status RunLoop::WaitForRanks() { return parts_.collective->AllGather("").status(); }

absl::StatusOr<bool> RunLoop::CompareRanks(int64_t epoch, bool complete, bool stopping) {
  cluster::v1::RankRound mine;
  mine.set_complete(complete);
  mine.set_stopping(stopping);
  const absl::Status error = parts_.coordinator->error();
  mine.set_error_code(error.raw_code());
  mine.set_error(std::string(error.message()));
  *mine.mutable_progress() = parts_.buffer->Report(epoch);
  DDPO_ASSIGN_OR_RETURN(std::vector<cluster::v1::RankRound> ranks,
                        GatherFromRanks(*parts_.collective, mine));
  bool all_complete = true, any_stopping = false;
  std::vector<cluster::v1::RankProgress> others;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    if (ranks[rank].error_code() != 0) {
      return absl::Status(static_cast<absl::StatusCode>(ranks[rank].error_code()),
                          ranks[rank].error());
    }
    all_complete &= ranks[rank].complete();
    any_stopping |= ranks[rank].stopping();
    if (static_cast<int>(rank) == parts_.collective->rank()) continue;
    others.push_back(std::move(*ranks[rank].mutable_progress()));
  }
  parts_.monitor->SetOtherRanks(std::move(others));
  if (any_stopping) return absl::CancelledError("the learner was asked to stop");
  return all_complete;
}

absl::StatusOr<std::vector<TrainingSample>> RunLoop::Collect(
    int64_t epoch, const std::function<bool()>& stopping) {
  while (true) {
    parts_.monitor->Beat();
    const Stopwatch waiting(clock_);
    const bool complete = parts_.buffer->WaitForEpoch(epoch, clock_->Now() + kLook);
    const bool deserted = leads() && !complete && parts_.coordinator->LiveActors().empty();
    parts_.metrics->idle_seconds[deserted ? "actors" : "samples"].Increment(waiting.Seconds());
    DDPO_ASSIGN_OR_RETURN(const bool all_complete, CompareRanks(epoch, complete, stopping()));
    CountTimeWithRanks();
    if (!all_complete) continue;
    parts_.coordinator->CompleteEpoch(epoch);
    return parts_.buffer->TakeEpoch(epoch);
  }
}

absl::StatusOr<std::string> RunLoop::Update(const std::vector<TrainingSample>& samples,
                                            EpochReport* report) {
  const int64_t epoch = report->epoch;
  const Stopwatch normalising(clock_);
  DDPO_ASSIGN_OR_RETURN(report->rewards,
                        GatherRewards(*parts_.collective, samples, parts_.buffer->scorer_digest()));
  scorer_digest_ = report->rewards.scorer_digest;
  parts_.buffer->PinScorer(scorer_digest_);
  report->staleness = epoch - report->rewards.oldest_policy;
  if (report->staleness > config_.training().max_staleness()) {
    return absl::InternalError(absl::StrCat("a sample of epoch ", epoch, " is ", report->staleness,
                                            " policy versions old; at most ",
                                            config_.training().max_staleness(), " are allowed"));
  }
  DDPO_ASSIGN_OR_RETURN(
      const std::vector<double> all_weights,
      parts_.statistics->Update(report->rewards.prompts, report->rewards.rewards));
  std::vector<double> weights;
  for (const size_t place : report->rewards.mine) weights.push_back(all_weights[place]);
  report->advantage_seconds = normalising.Seconds();

  const Stopwatch updating(clock_);
  auto update = parts_.trainer->TrainEpoch(samples, weights, epoch);
  if (!update.ok()) {
    if (IsNonFinite(update.status())) parts_.metrics->non_finite_refused.Increment();
    return update.status();
  }
  DDPO_RETURN_IF_ERROR(CheckStaleLogProbs(samples, epoch, &*update));
  report->update_seconds = updating.Seconds();
  parts_.buffer->MarkTrained(static_cast<int64_t>(samples.size()));

  DDPO_ASSIGN_OR_RETURN(std::string policy, SerializePolicy());
  cluster::v1::RankUpdate mine = ToRankUpdate(*update);
  mine.set_policy_sha256(Sha256Hex(policy));
  *mine.mutable_progress() = parts_.buffer->Report(epoch);
  DDPO_ASSIGN_OR_RETURN(const std::vector<cluster::v1::RankUpdate> ranks,
                        GatherFromRanks(*parts_.collective, mine));
  std::vector<std::string> digests;
  std::vector<cluster::v1::RankProgress> others;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    digests.push_back(ranks[rank].policy_sha256());
    AddLedger(ranks[rank].progress().ledger(), &report->ledger);
    if (static_cast<int>(rank) != parts_.collective->rank()) {
      others.push_back(ranks[rank].progress());
    }
  }
  DDPO_RETURN_IF_ERROR(CheckRanksAlike(absl::StrCat("the policy after epoch ", epoch), digests));
  parts_.monitor->SetOtherRanks(std::move(others));
  report->update = MergeUpdates(ranks);
  CountTimeWithRanks();
  return policy;
}

absl::Status RunLoop::CheckStaleLogProbs(absl::Span<const TrainingSample> samples, int64_t epoch,
                                         UpdateMetrics* update) {
  const int64_t version = samples[0].policy_version;
  // Only rank 0 keeps older policies.
  if (version == epoch || !leads()) return absl::OkStatus();
  DDPO_ASSIGN_OR_RETURN(const auto policy, parts_.policies->Find(version));
  const auto difference = parts_.trainer->LogProbDifference(samples, policy->bytes, epoch);
  if (difference.ok()) {
    update->logprob_abs_diff_max = *difference;
  } else if (!absl::IsUnimplemented(difference.status())) {
    LogWarning("log-probabilities are not compared: ", difference.status().ToString());
  }
  return absl::OkStatus();
}

absl::Status RunLoop::RunEpoch(int64_t epoch, const std::function<bool()>& stopping) {
  parts_.monitor->Enter("sampling", epoch);
  DDPO_RETURN_IF_ERROR(PlanUpTo(epoch + config_.training().max_staleness()));
  EpochReport report;
  report.epoch = epoch;
  const Stopwatch collecting(clock_);
  DDPO_ASSIGN_OR_RETURN(const std::vector<TrainingSample> samples, Collect(epoch, stopping));
  report.collect_seconds = collecting.Seconds();
  parts_.monitor->Enter("training", epoch);
  DDPO_ASSIGN_OR_RETURN(std::string policy, Update(samples, &report));

  KillPoint("epoch.before_publish");
  if (leads()) {
    const Stopwatch publishing(clock_);
    const bool keep =
        (epoch + 1) % config_.run().save_every() == 0 || epoch + 1 == config_.run().epochs();
    if (keep) DDPO_RETURN_IF_ERROR(parts_.files->WritePolicy(epoch + 1, policy));
    Publish(epoch + 1, std::move(policy));
    report.publish_seconds = publishing.Seconds();
  }
  return Report(std::move(report));
}

absl::StatusOr<std::string> RunLoop::SerializePolicy() {
  auto bytes = parts_.trainer->SerializePolicy();
  if (IsNonFinite(bytes.status())) parts_.metrics->non_finite_refused.Increment();
  return bytes;
}

void RunLoop::Publish(int64_t version, std::string policy) {
  parts_.policies->Publish(version, std::move(policy));
  parts_.coordinator->Publish(version);
  parts_.metrics->policy_version.Set(static_cast<double>(version));
}

absl::Status RunLoop::Save(int64_t epochs_done) {
  parts_.monitor->Enter("saving", epochs_done);
  const Stopwatch saving(clock_);
  Checkpoint checkpoint;
  checkpoint.epochs_done = epochs_done;
  DDPO_ASSIGN_OR_RETURN(checkpoint.trainer_state, parts_.trainer->SerializeState());
  checkpoint.prompt_statistics = parts_.statistics->SerializeState();
  checkpoint.ledger = parts_.monitor->Status().ledger();
  checkpoint.config_yaml = ConfigToYaml(config_);
  checkpoint.model_digest = parts_.coordinator->model_digest();
  checkpoint.scorer_digest = scorer_digest_;
  checkpoint.generation = parts_.coordinator->generation();
  const int64_t oldest = std::max<int64_t>(0, epochs_done - config_.training().max_staleness());
  for (int64_t version = oldest; version < epochs_done; ++version) {
    DDPO_ASSIGN_OR_RETURN(const auto policy, parts_.policies->Find(version));
    checkpoint.policies[version] = policy->bytes;
  }
  checkpoint.elapsed_seconds = ElapsedSeconds();
  DDPO_RETURN_IF_ERROR(checkpoint_writer_.Write(std::move(checkpoint)));
  saved_epochs_ = epochs_done;
  unreported_save_seconds_ += saving.Seconds();
  parts_.metrics->phase_seconds["checkpoint"].Observe(saving.Seconds());
  return absl::OkStatus();
}

absl::Status RunLoop::Report(EpochReport report) {
  report.epochs_total = config_.run().epochs();
  report.elapsed_seconds = ElapsedSeconds();
  report.checkpoint_seconds = std::exchange(unreported_save_seconds_, 0);
  if (leads()) {
    const std::string line = EpochLine(report);
    DDPO_RETURN_IF_ERROR(parts_.files->AppendMetrics(line));
    parts_.monitor->SetLastMetrics(line);
  }
  ExportEpoch(report, *parts_.metrics);
  LogInfo(EpochText(report));
  return absl::OkStatus();
}

double RunLoop::ElapsedSeconds() const {
  return elapsed_before_ + absl::ToDoubleSeconds(clock_->Now() - start_);
}

}  // namespace ddpo
