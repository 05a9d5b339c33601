#include "learner/run_loop.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "common/base/logging.h"
#include "common/base/statistics.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"

namespace ddpo {
namespace {

// How often waiting is interrupted to look for a stop or a failed task.
constexpr absl::Duration kLook = absl::Milliseconds(200);

class Stopwatch {
 public:
  explicit Stopwatch(Clock* clock) : clock_(clock), start_(clock->Now()) {}
  double Seconds() const { return absl::ToDoubleSeconds(clock_->Now() - start_); }

 private:
  Clock* const clock_;
  const absl::Time start_;
};

nlohmann::json LedgerJson(const cluster::v1::Ledger& ledger) {
  nlohmann::json dropped = nlohmann::json::object();
  for (const auto& [reason, count] : ledger.dropped()) dropped[reason] = count;
  return {{"received", ledger.received()},
          {"trained", ledger.trained()},
          {"dropped", dropped},
          {"buffered", ledger.buffered()}};
}

}  // namespace

absl::Status RunLoop::Restore(const Checkpoint& checkpoint) {
  DDPO_RETURN_IF_ERROR(parts_.trainer->RestoreState(checkpoint.trainer_state));
  DDPO_RETURN_IF_ERROR(parts_.statistics->RestoreState(checkpoint.prompt_statistics));
  parts_.buffer->RestoreLedger(checkpoint.ledger);
  if (checkpoint.epochs_done > 0) parts_.buffer->MarkDone(checkpoint.epochs_done - 1);
  next_epoch_ = checkpoint.epochs_done;
  saved_epochs_ = checkpoint.epochs_done;
  parts_.monitor->SetCheckpoint(saved_epochs_, /*written=*/false);
  parts_.metrics->checkpoint_epochs.Set(static_cast<double>(saved_epochs_));
  elapsed_before_ = checkpoint.elapsed_seconds;
  restored_policies_ = checkpoint.policies;
  return absl::OkStatus();
}

void RunLoop::PlanUpTo(int64_t last_epoch) {
  last_epoch = std::min<int64_t>(last_epoch, config_.run().epochs() - 1);
  for (; planned_epochs_ <= last_epoch; ++planned_epochs_) {
    const auto tasks = parts_.planner->PlanEpoch(planned_epochs_);
    for (const auto& task : tasks) parts_.buffer->Expect(task);
    parts_.coordinator->AddTasks(tasks);
  }
}

absl::Status RunLoop::Run(const std::function<bool()>& stopping) {
  start_ = clock_->Now();
  planned_epochs_ = next_epoch_;
  DDPO_RETURN_IF_ERROR(parts_.files->TruncateMetrics(next_epoch_));
  if (next_epoch_ == 0) {
    DDPO_ASSIGN_OR_RETURN(const std::string lora, SerializePolicy());
    DDPO_RETURN_IF_ERROR(parts_.files->WriteLora(0, lora));
  }
  for (auto& [version, bytes] : restored_policies_) {
    parts_.policies->Publish(version, std::move(bytes));
  }
  restored_policies_.clear();
  DDPO_RETURN_IF_ERROR(Publish(next_epoch_));
  while (next_epoch_ < config_.run().epochs()) {
    const absl::Status status = RunEpoch(next_epoch_, stopping);
    if (absl::IsCancelled(status)) {
      if (saved_epochs_ != next_epoch_) DDPO_RETURN_IF_ERROR(Save(next_epoch_));
      return status;
    }
    DDPO_RETURN_IF_ERROR(status);
    ++next_epoch_;
    const bool last = next_epoch_ == config_.run().epochs();
    if (last || next_epoch_ % config_.checkpoint().every_epochs() == 0) {
      DDPO_RETURN_IF_ERROR(Save(next_epoch_));
    }
  }
  DDPO_ASSIGN_OR_RETURN(const std::string lora, parts_.trainer->SerializeFinalPolicy());
  DDPO_RETURN_IF_ERROR(parts_.files->WriteFinalLora(lora));
  parts_.monitor->Enter("complete", next_epoch_);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TrainingSample>> RunLoop::Collect(
    int64_t epoch, const std::function<bool()>& stopping) {
  while (true) {
    parts_.monitor->Beat();
    DDPO_RETURN_IF_ERROR(parts_.coordinator->error());
    if (stopping()) return absl::CancelledError("the learner was asked to stop");
    auto samples = parts_.buffer->TakeEpoch(epoch, clock_->Now() + kLook);
    if (samples.ok() || !absl::IsDeadlineExceeded(samples.status())) return samples;
  }
}

absl::Status RunLoop::RunEpoch(int64_t epoch, const std::function<bool()>& stopping) {
  parts_.monitor->Enter("sampling", epoch);
  PlanUpTo(epoch + config_.training().max_staleness());
  EpochResult result;
  const Stopwatch collecting(clock_);
  DDPO_ASSIGN_OR_RETURN(const std::vector<TrainingSample> samples, Collect(epoch, stopping));
  result.collect_seconds = collecting.Seconds();
  parts_.metrics->idle_seconds["samples"].Increment(result.collect_seconds);

  std::vector<std::string> prompts;
  for (const TrainingSample& sample : samples) {
    prompts.push_back(sample.prompt);
    result.rewards.push_back(sample.reward);
    for (const auto& [name, value] : sample.reward_details) result.reward_details[name] += value;
    for (const auto& [phase, value] : sample.actor_seconds) result.actor_seconds[phase] += value;
    result.staleness = std::max(result.staleness, epoch - sample.policy_version);
  }
  if (result.staleness > config_.training().max_staleness()) {
    return absl::InternalError(absl::StrCat("a sample of epoch ", epoch, " is ", result.staleness,
                                            " policy versions old; at most ",
                                            config_.training().max_staleness(), " are allowed"));
  }
  parts_.monitor->Enter("training", epoch);
  const Stopwatch normalising(clock_);
  DDPO_ASSIGN_OR_RETURN(const std::vector<double> advantages,
                        parts_.statistics->Update(prompts, result.rewards));
  result.advantage_seconds = normalising.Seconds();
  const Stopwatch updating(clock_);
  auto update = parts_.trainer->TrainEpoch(samples, advantages, epoch);
  if (!update.ok()) {
    if (absl::IsInternal(update.status())) parts_.metrics->non_finite_refused.Increment();
    return update.status();
  }
  result.update = *update;
  result.update_seconds = updating.Seconds();
  parts_.buffer->MarkTrained(static_cast<int64_t>(samples.size()));
  if (!result.update.weights_changed) parts_.metrics->weights_unchanged.Increment();

  const Stopwatch publishing(clock_);
  DDPO_RETURN_IF_ERROR(Publish(epoch + 1));
  if ((epoch + 1) % config_.run().save_every() == 0 || epoch + 1 == config_.run().epochs()) {
    DDPO_ASSIGN_OR_RETURN(const auto policy, parts_.policies->Find(epoch + 1));
    DDPO_RETURN_IF_ERROR(parts_.files->WriteLora(epoch + 1, policy->bytes));
  }
  result.publish_seconds = publishing.Seconds();
  return Report(epoch, result);
}

absl::StatusOr<std::string> RunLoop::SerializePolicy() {
  auto bytes = parts_.trainer->SerializePolicy();
  if (!bytes.ok()) parts_.metrics->non_finite_refused.Increment();
  return bytes;
}

absl::Status RunLoop::Publish(int64_t version) {
  DDPO_ASSIGN_OR_RETURN(std::string bytes, SerializePolicy());
  parts_.policies->Publish(version, std::move(bytes));
  parts_.coordinator->Publish(version);
  parts_.metrics->policy_version.Set(static_cast<double>(version));
  return absl::OkStatus();
}

absl::Status RunLoop::Save(int64_t epochs_done) {
  parts_.monitor->Enter("saving", epochs_done);
  const Stopwatch saving(clock_);
  Checkpoint checkpoint;
  checkpoint.epochs_done = epochs_done;
  DDPO_ASSIGN_OR_RETURN(checkpoint.trainer_state, parts_.trainer->SerializeState());
  checkpoint.prompt_statistics = parts_.statistics->SerializeState();
  checkpoint.ledger = parts_.buffer->ledger();
  checkpoint.config_yaml = ConfigToYaml(config_);
  checkpoint.model_digest = parts_.coordinator->model_digest();
  checkpoint.generation = parts_.coordinator->generation();
  const int64_t oldest = std::max<int64_t>(0, epochs_done - config_.training().max_staleness());
  for (int64_t version = oldest; version < epochs_done; ++version) {
    DDPO_ASSIGN_OR_RETURN(const auto policy, parts_.policies->Find(version));
    checkpoint.policies[version] = policy->bytes;
  }
  checkpoint.elapsed_seconds = elapsed_before_ + absl::ToDoubleSeconds(clock_->Now() - start_);
  DDPO_RETURN_IF_ERROR(parts_.checkpoints->Write(checkpoint));
  saved_epochs_ = epochs_done;
  parts_.monitor->SetCheckpoint(saved_epochs_, /*written=*/true);
  parts_.metrics->checkpoint_epochs.Set(static_cast<double>(saved_epochs_));
  unreported_save_seconds_ += saving.Seconds();
  parts_.metrics->phase_seconds["checkpoint"].Observe(saving.Seconds());
  parts_.metrics->checkpoint_timestamp.Set(
      absl::ToDoubleSeconds(clock_->Now() - absl::UnixEpoch()));
  return absl::OkStatus();
}

absl::Status RunLoop::Report(int64_t epoch, const EpochResult& result) {
  const UpdateMetrics& update = result.update;
  const double reward_mean = Mean(result.rewards);
  const double reward_std = PopulationStddev(result.rewards);
  const int64_t samples = config_.sampling().samples_per_epoch();
  const double seconds = result.collect_seconds + result.advantage_seconds + result.update_seconds +
                         result.publish_seconds;
  nlohmann::json reward_details = nlohmann::json::object();
  for (const auto& [name, sum] : result.reward_details) {
    reward_details[name] = sum / static_cast<double>(result.rewards.size());
  }
  const nlohmann::json line = {
      {"epoch", epoch},
      {"policy_version", epoch + 1},
      {"samples_total", (epoch + 1) * samples},
      {"reward_mean", reward_mean},
      {"reward_std", reward_std},
      {"reward_details", reward_details},
      {"loss", update.loss},
      {"approx_kl", update.approx_kl},
      {"clip_fraction", update.clip_fraction},
      {"ratio_mean", update.ratio_mean},
      {"reference_kl", update.reference_kl},
      {"logprob_abs_diff_max", update.logprob_abs_diff_max},
      {"grad_norm", update.grad_norm},
      {"staleness_max", result.staleness},
      {"samples_per_second", seconds > 0 ? static_cast<double>(samples) / seconds : 0},
      {"elapsed_seconds", elapsed_before_ + absl::ToDoubleSeconds(clock_->Now() - start_)},
      {"seconds",
       {{"sampling", result.collect_seconds},
        {"advantages", result.advantage_seconds},
        {"training", result.update_seconds},
        {"publishing", result.publish_seconds},
        // Of the checkpoint before this epoch: a checkpoint's own epoch has its line already.
        {"checkpoint", std::exchange(unreported_save_seconds_, 0)}}},
      // Of all actors together, by what they did; beside, not within, the learner's seconds.
      {"actor_seconds", result.actor_seconds},
      {"ledger", LedgerJson(parts_.buffer->ledger())}};
  DDPO_RETURN_IF_ERROR(parts_.files->AppendMetrics(line.dump()));
  parts_.monitor->SetLastMetrics(line.dump());

  LearnerMetrics& metrics = *parts_.metrics;
  metrics.epoch.Set(static_cast<double>(epoch));
  metrics.reward_mean.Set(reward_mean);
  metrics.reward_stddev.Set(reward_std);
  // Not there where the reward servers do not flag such images.
  metrics.near_constant_ratio.Set(reward_details.value("near_constant", 0.0));
  metrics.loss.Set(update.loss);
  metrics.approx_kl.Set(update.approx_kl);
  metrics.clip_fraction.Set(update.clip_fraction);
  metrics.ratio_mean.Set(update.ratio_mean);
  metrics.logprob_abs_diff_max.Set(update.logprob_abs_diff_max);
  metrics.grad_norm.Set(update.grad_norm);
  metrics.staleness_max.Set(static_cast<double>(result.staleness));
  metrics.optimizer_steps.Increment(static_cast<double>(update.optimizer_steps));
  metrics.phase_seconds["collect"].Observe(result.collect_seconds);
  metrics.phase_seconds["advantages"].Observe(result.advantage_seconds);
  metrics.phase_seconds["update"].Observe(result.update_seconds);
  metrics.phase_seconds["publish"].Observe(result.publish_seconds);
  LogInfo(
      absl::StrFormat("epoch %d of %d: reward %.4f ± %.4f, %.2f samples/s, KL %.2e, clipped %.3f",
                      epoch + 1, config_.run().epochs(), reward_mean, reward_std,
                      static_cast<double>(samples) / std::max(seconds, 1e-9), update.approx_kl,
                      update.clip_fraction));
  return absl::OkStatus();
}

}  // namespace ddpo
