#include "reward_server/jobs.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/logging.h"
#include "common/base/status_macros.h"
#include "reward_server/scoring_item.h"

namespace ddpo {
namespace {

using reward::v1::ItemError;
using reward::v1::Job;

// How often a wait asks whether it was cancelled.
constexpr absl::Duration kPollInterval = absl::Milliseconds(100);
constexpr absl::Duration kExpireInterval = absl::Minutes(1);

bool HasEnded(const Job& job) {
  return job.state() != reward::v1::JOB_STATE_PENDING &&
         job.state() != reward::v1::JOB_STATE_RUNNING;
}

int64_t Bytes(const std::vector<JobStore::PendingItem>& items) {
  int64_t bytes = 0;
  for (const JobStore::PendingItem& item : items) {
    bytes += static_cast<int64_t>(item.item.ByteSizeLong());
  }
  return bytes;
}

}  // namespace

// Some items of a job in the batcher.
class JobRunner::Chunk : public BatchCall {
 public:
  Chunk(const std::string& job, const ScorerInfo& scorer, int64_t max_pixels,
        std::vector<JobStore::PendingItem> items)
      : BatchCall(job, absl::InfiniteFuture(), items.size(), Bytes(items)),
        scorer_(scorer),
        max_pixels_(max_pixels),
        items_(std::move(items)) {}

  absl::StatusOr<ScoringInput> Prepare(size_t index) override {
    return ToScoringInput(items_[index].item, scorer_, max_pixels_);
  }

  void OnOutcome(size_t index, absl::StatusOr<ScoreValue> outcome) override {
    JobStore::ItemResult result;
    result.index = items_[index].index;
    result.result.set_item_id(items_[index].item.item_id());
    SetOutcome(outcome, &result.result);
    absl::MutexLock lock(&mu_);
    results_.push_back(std::move(result));
    ++reported_;
  }

  // It stays in the store without a result.
  void OnDropped(size_t, absl::Status) override {
    absl::MutexLock lock(&mu_);
    ++reported_;
  }

  // Each item gets the same error.
  void FailAll(const absl::Status& status) {
    for (size_t i = 0; i < items(); ++i) OnOutcome(i, status);
  }

  // Waits until every item is reported; returns the results.
  std::vector<JobStore::ItemResult> Await() {
    absl::MutexLock lock(&mu_);
    auto complete = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return reported_ == items(); };
    mu_.Await(absl::Condition(&complete));
    return std::move(results_);
  }

 private:
  const ScorerInfo& scorer_;
  const int64_t max_pixels_;
  const std::vector<JobStore::PendingItem> items_;
  absl::Mutex mu_;
  size_t reported_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<JobStore::ItemResult> results_ ABSL_GUARDED_BY(mu_);
};

JobRunner::JobRunner(JobStore* store, ScorerPool* pool, const JobRunnerOptions& options)
    : store_(store), pool_(pool), options_(options) {}

JobRunner::~JobRunner() { Stop(); }

absl::Status JobRunner::Start() {
  DDPO_ASSIGN_OR_RETURN(const std::vector<std::string> unfinished, store_->Unfinished());
  {
    absl::MutexLock lock(&mu_);
    queue_.assign(unfinished.begin(), unfinished.end());
  }
  for (int i = 0; i < std::max(1, options_.workers); ++i) {
    threads_.emplace_back([this] { Run(); });
  }
  threads_.emplace_back([this] { Expire(); });
  return absl::OkStatus();
}

void JobRunner::Add(const std::string& name) {
  absl::MutexLock lock(&mu_);
  // A repeated submission names a job that is known already.
  if (running_.count(name) > 0 || std::count(queue_.begin(), queue_.end(), name) > 0) return;
  queue_.push_back(name);
  changed_.SignalAll();
}

void JobRunner::Drop(const std::string& name) {
  std::shared_ptr<Chunk> chunk;
  {
    absl::MutexLock lock(&mu_);
    auto it = running_.find(name);
    if (it != running_.end()) chunk = it->second;
    changed_.SignalAll();
  }
  if (chunk == nullptr) return;
  chunk->Cancel();
  for (Batcher* batcher : pool_->batchers()) batcher->Sweep();
}

absl::StatusOr<Job> JobRunner::WaitForEnd(const std::string& name, absl::Time deadline,
                                          const std::function<bool()>& cancelled) {
  while (true) {
    DDPO_ASSIGN_OR_RETURN(Job job, store_->Get(name));
    const absl::Time now = options_.clock->Now();
    if (HasEnded(job) || now >= deadline) return job;
    if (cancelled && cancelled()) return absl::CancelledError("the caller is gone");
    absl::MutexLock lock(&mu_);
    if (stopping_) return absl::UnavailableError("the reward server is stopping");
    options_.clock->WaitWithDeadline(&changed_, &mu_, std::min(deadline, now + kPollInterval));
  }
}

void JobRunner::Stop() {
  std::vector<std::shared_ptr<Chunk>> chunks;
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    for (const auto& [name, chunk] : running_) chunks.push_back(chunk);
    changed_.SignalAll();
  }
  for (const auto& chunk : chunks) {
    if (chunk != nullptr) chunk->Cancel();
  }
  for (Batcher* batcher : pool_->batchers()) batcher->Sweep();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

std::string JobRunner::Take() {
  absl::MutexLock lock(&mu_);
  while (!stopping_ && queue_.empty()) changed_.Wait(&mu_);
  if (stopping_) return "";
  std::string name = std::move(queue_.front());
  queue_.pop_front();
  running_[name] = nullptr;
  return name;
}

void JobRunner::Run() {
  for (std::string name = Take(); !name.empty(); name = Take()) {
    absl::StatusOr<bool> more = Advance(name);
    if (absl::IsDataLoss(more.status())) {
      // It would be as damaged the next time.
      LogError(more.status().ToString());
      more = EndAsFailed(name, absl::StatusCode::kDataLoss, "JOB_DAMAGED",
                         std::string(more.status().message()));
    }
    if (absl::IsCancelled(more.status())) {
      more = true;
    } else if (!more.ok() && !absl::IsNotFound(more.status())) {
      LogError(name, ": ", more.status().ToString());
      Pause(options_.retry_pause);
      more = true;
    }
    absl::MutexLock lock(&mu_);
    running_.erase(name);
    if (more.ok() && *more) queue_.push_back(name);
    changed_.SignalAll();
  }
}

absl::StatusOr<bool> JobRunner::Advance(const std::string& name) {
  DDPO_ASSIGN_OR_RETURN(
      JobStore::Work work,
      store_->NextWork(name, std::max(1, options_.items_at_a_time), options_.bytes_at_a_time));
  if (work.items.empty()) return false;
  absl::StatusOr<Batcher*> batcher = pool_->Find(work.scorer);
  if (!batcher.ok()) {
    // It goes on when a server with this scorer opens the store.
    LogWarning(name, " has to wait: ", batcher.status().message());
    return false;
  }
  const ScorerInfo& info = (*batcher)->info();
  if (info.digest != work.scorer_digest) {
    return EndAsFailed(name, absl::StatusCode::kFailedPrecondition, "SCORER_CHANGED",
                       absl::StrCat("scorer ", info.name, " has digest ", info.digest,
                                    ", the job was accepted with ", work.scorer_digest,
                                    ": its scores would not be comparable"));
  }
  auto chunk =
      std::make_shared<Chunk>(name, info, options_.max_image_pixels, std::move(work.items));
  DDPO_RETURN_IF_ERROR(Score(name, *batcher, chunk));
  DDPO_ASSIGN_OR_RETURN(const Job job, store_->RecordResults(name, chunk->Await()));
  return !HasEnded(job);
}

absl::StatusOr<bool> JobRunner::EndAsFailed(const std::string& name, absl::StatusCode code,
                                            const std::string& reason, const std::string& message) {
  ItemError error;
  error.set_code(static_cast<int>(code));
  error.set_reason(reason);
  error.set_message(message);
  if (!store_->Fail(name, error).ok()) return absl::UnavailableError("cannot end the job");
  return false;
}

absl::Status JobRunner::Score(const std::string& name, Batcher* batcher,
                              const std::shared_ptr<Chunk>& chunk) {
  {
    absl::MutexLock lock(&mu_);
    running_[name] = chunk;
    if (stopping_) chunk->Cancel();
  }
  while (true) {
    absl::Status status = batcher->Submit(chunk);
    if (status.ok()) return status;
    if (absl::IsInvalidArgument(status)) {
      // Larger than the whole queue.
      chunk->FailAll(
          ItemFailure(absl::StatusCode::kInvalidArgument, "ITEM_TOO_LARGE", status.message()));
      return absl::OkStatus();
    }
    if (!absl::IsResourceExhausted(status)) return status;
    Pause(batcher->RetryAfter());
    absl::MutexLock lock(&mu_);
    if (stopping_ || chunk->cancelled()) return absl::CancelledError("the job's turn was ended");
  }
}

void JobRunner::Expire() {
  while (true) {
    absl::StatusOr<int64_t> expired =
        store_->DeleteEndedBefore(options_.clock->Now() - options_.max_age);
    if (!expired.ok()) LogError("cannot expire jobs: ", expired.status().ToString());
    Pause(kExpireInterval);
    absl::MutexLock lock(&mu_);
    if (stopping_) return;
  }
}

void JobRunner::Pause(absl::Duration duration) {
  const absl::Time end = options_.clock->Now() + duration;
  absl::MutexLock lock(&mu_);
  while (!stopping_ && options_.clock->Now() < end) {
    options_.clock->WaitWithDeadline(&changed_, &mu_, end);
  }
}

}  // namespace ddpo
