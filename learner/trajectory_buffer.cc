#include "learner/trajectory_buffer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace ddpo {
namespace {

using cluster::v1::SampleAck;
using cluster::v1::TrajectorySample;

std::vector<float> ToFloats(const std::string& bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

bool AllFinite(const std::string& bytes) {
  for (const float value : ToFloats(bytes)) {
    if (!std::isfinite(value)) return false;
  }
  return true;
}

}  // namespace

void TrajectoryBuffer::Expect(const cluster::v1::RolloutTask& task) {
  if (task.rank() != rank_) return;
  absl::MutexLock lock(&mutex_);
  tasks_.try_emplace(task.task_id()).first->second.task = task;
}

std::string TrajectoryBuffer::Fault(const TrajectorySample& sample, const Task& task) const {
  if (sample.sample_index() < 0 || sample.sample_index() >= task.task.prompts_size()) {
    return absl::StrCat("sample index ", sample.sample_index(), " of a task with ",
                        task.task.prompts_size(), " samples");
  }
  if (sample.policy_version() != task.task.policy_version()) {
    return absl::StrCat("sampled with policy version ", sample.policy_version(), ", expected ",
                        task.task.policy_version());
  }
  if (sample.num_steps() != num_steps_) {
    return absl::StrCat(sample.num_steps(), " denoising steps, expected ", num_steps_);
  }
  const std::vector<int64_t> shape = {sample.latent_channels(), sample.latent_height(),
                                      sample.latent_width()};
  if (shape != latent_shape_) {
    return absl::StrCat("a latent of shape [", absl::StrJoin(shape, ","), "], expected [",
                        absl::StrJoin(latent_shape_, ","), "]");
  }
  const auto latent = static_cast<size_t>(shape[0] * shape[1] * shape[2]);
  const size_t expected = (static_cast<size_t>(num_steps_) + 1) * latent * sizeof(float);
  if (sample.latents().size() != expected) {
    return absl::StrCat(sample.latents().size(), " bytes of latents, expected ", expected);
  }
  if (sample.log_probs().size() != static_cast<size_t>(num_steps_) * sizeof(float)) {
    return absl::StrCat(sample.log_probs().size(), " bytes of log-probabilities, expected ",
                        num_steps_ * sizeof(float));
  }
  if (!std::isfinite(sample.reward())) return "a reward that is not finite";
  if (!AllFinite(sample.latents())) return "a latent that is not finite";
  if (!AllFinite(sample.log_probs())) return "a log-probability that is not finite";
  return "";
}

TrajectoryBuffer::Answer TrajectoryBuffer::Offer(const TrajectorySample& sample,
                                                 uint64_t generation) {
  Answer answer;
  answer.ack.set_task_id(sample.task_id());
  answer.ack.set_sample_index(sample.sample_index());
  absl::MutexLock lock(&mutex_);
  const auto drop = [&](SampleAck::Outcome outcome, const char* reason,
                        const std::string& message) {
    mutex_.AssertHeld();
    ledger_.Drop(reason);
    answer.ack.set_outcome(outcome);
    answer.ack.set_message(message);
    return answer;
  };
  if (sample.generation() != generation) {
    return drop(
        SampleAck::REFUSED, "stale_generation",
        absl::StrCat("generation ", sample.generation(), ", the learner is at ", generation));
  }
  const auto found = tasks_.find(sample.task_id());
  if (found == tasks_.end()) {
    if (sample.epoch() < done_before_epoch_) {
      answer.task_complete = true;
      return drop(SampleAck::DUPLICATE, "duplicate", "");
    }
    return drop(SampleAck::REFUSED, "unknown_task",
                absl::StrCat("no task `", sample.task_id(), "` is out"));
  }
  Task& task = found->second;
  const auto all = static_cast<size_t>(task.task.prompts_size());
  if (const std::string fault = Fault(sample, task); !fault.empty()) {
    return drop(SampleAck::REFUSED, "malformed",
                absl::StrCat(sample.task_id(), "/", sample.sample_index(), ": ", fault));
  }
  if (task.samples.contains(sample.sample_index())) {
    answer.task_complete = task.samples.size() == all;
    return drop(SampleAck::DUPLICATE, "duplicate", "");
  }
  if (!scorer_digest_.empty() && sample.scorer_digest() != scorer_digest_) {
    return drop(SampleAck::REFUSED, "other_scorer",
                absl::StrCat(sample.task_id(), "/", sample.sample_index(),
                             ": a reward of a scorer with digest `", sample.scorer_digest(),
                             "`, the run's rewards are of digest `", scorer_digest_,
                             "`: they are not comparable"));
  }
  scorer_digest_ = sample.scorer_digest();
  task.samples[sample.sample_index()] = TrainingSample{
      .task_id = sample.task_id(),
      .sample_index = sample.sample_index(),
      .prompt = task.task.prompts(sample.sample_index()),
      .policy_version = sample.policy_version(),
      .latents = ToFloats(sample.latents()),
      .log_probs = ToFloats(sample.log_probs()),
      .reward = sample.reward(),
      .reward_details = {sample.reward_details().begin(), sample.reward_details().end()},
      .actor_seconds = {sample.seconds().begin(), sample.seconds().end()}};
  ledger_.Buffer();
  ++delivered_[sample.actor_id()];
  answer.ack.set_outcome(SampleAck::TAKEN);
  answer.task_complete = task.samples.size() == all;
  return answer;
}

void TrajectoryBuffer::PinScorer(const std::string& digest) {
  absl::MutexLock lock(&mutex_);
  if (!digest.empty()) scorer_digest_ = digest;
}

std::string TrajectoryBuffer::scorer_digest() const {
  absl::MutexLock lock(&mutex_);
  return scorer_digest_;
}

TrajectoryBuffer::Progress TrajectoryBuffer::ProgressLocked(int64_t epoch) const {
  Progress progress;
  for (const auto& [id, task] : tasks_) {
    if (task.task.epoch() != epoch) continue;
    progress.have += static_cast<int64_t>(task.samples.size());
    progress.want += task.task.prompts_size();
  }
  return progress;
}

TrajectoryBuffer::Progress TrajectoryBuffer::EpochProgress(int64_t epoch) const {
  absl::MutexLock lock(&mutex_);
  return ProgressLocked(epoch);
}

bool TrajectoryBuffer::CompleteLocked(int64_t epoch) const {
  const Progress progress = ProgressLocked(epoch);
  return progress.want > 0 && progress.have == progress.want;
}

bool TrajectoryBuffer::WaitForEpoch(int64_t epoch, absl::Time deadline) const {
  absl::MutexLock lock(&mutex_);
  const auto complete = [this, epoch] {
    mutex_.AssertHeld();
    return CompleteLocked(epoch);
  };
  return mutex_.AwaitWithDeadline(absl::Condition(&complete), deadline);
}

absl::StatusOr<std::vector<TrainingSample>> TrajectoryBuffer::TakeEpoch(int64_t epoch) {
  absl::MutexLock lock(&mutex_);
  if (!CompleteLocked(epoch)) {
    return absl::FailedPreconditionError(absl::StrCat("epoch ", epoch, " is not complete"));
  }
  std::vector<TrainingSample> samples;
  for (auto it = tasks_.begin(); it != tasks_.end();) {  // by task id, which is the planned order
    if (it->second.task.epoch() != epoch) {
      ++it;
      continue;
    }
    for (auto& [index, sample] : it->second.samples) samples.push_back(std::move(sample));
    it = tasks_.erase(it);
  }
  done_before_epoch_ = std::max(done_before_epoch_, epoch + 1);
  return samples;
}

void TrajectoryBuffer::MarkTrained(int64_t count) {
  absl::MutexLock lock(&mutex_);
  ledger_.Train(count);
}

void TrajectoryBuffer::MarkDone(int64_t epoch) {
  absl::MutexLock lock(&mutex_);
  done_before_epoch_ = std::max(done_before_epoch_, epoch + 1);
}

cluster::v1::Ledger TrajectoryBuffer::ledger() const {
  absl::MutexLock lock(&mutex_);
  return ledger_.ToProto();
}

void TrajectoryBuffer::RestoreLedger(const cluster::v1::Ledger& saved) {
  absl::MutexLock lock(&mutex_);
  ledger_.Restore(saved);
}

cluster::v1::RankProgress TrajectoryBuffer::Report(int64_t epoch) const {
  absl::MutexLock lock(&mutex_);
  cluster::v1::RankProgress report;
  *report.mutable_ledger() = ledger_.ToProto();
  const Progress progress = ProgressLocked(epoch);
  report.set_epoch_have(progress.have);
  report.set_epoch_want(progress.want);
  report.mutable_delivered()->insert(delivered_.begin(), delivered_.end());
  return report;
}

}  // namespace ddpo
