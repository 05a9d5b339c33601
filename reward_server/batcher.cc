#include "reward_server/batcher.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ddpo {
namespace {

constexpr absl::Duration kShortestRetry = absl::Milliseconds(10);
constexpr absl::Duration kLongestRetry = absl::Seconds(30);
// Weight of the newest batch in the moving average of the time for an item.
constexpr double kAverageWeight = 0.1;

int64_t BytesPerItem(const BatchCall& call) {
  return call.bytes() / static_cast<int64_t>(call.items());
}

int64_t ImageBytes(const ScoringInput& input) {
  return static_cast<int64_t>(input.image.rgb.size());
}

int BatchSize(const ScorerInfo& info, const BatcherOptions& options) {
  if (!info.gains_from_batching) return 1;
  return std::max(1, std::min(info.max_batch_size, options.max_batch_size));
}

absl::Status AbortedStatus() { return absl::UnavailableError("the reward server is stopping"); }

// A score that is not finite is not a score.
absl::StatusOr<ScoreValue> CheckFinite(absl::StatusOr<ScoreValue> outcome,
                                       const std::string& scorer) {
  if (!outcome.ok()) return outcome;
  if (!std::isfinite(outcome->value)) {
    return absl::InternalError(
        absl::StrCat("scorer ", scorer, " computed ", outcome->value, ", which is not finite"));
  }
  return outcome;
}

}  // namespace

Batcher::Batcher(std::unique_ptr<Scorer> scorer, const BatcherOptions& options)
    : scorer_(std::move(scorer)),
      options_(options),
      batch_size_(BatchSize(scorer_->info(), options)),
      // Two batches for each scoring thread: one is computed while the next is decoded. A longer
      // list would take the turns of callers that come later.
      prepared_limit_(2 * batch_size_ * std::max(1, options.scoring_threads)) {
  if (options_.metrics != nullptr) {
    options_.metrics->queue_limit.Set(static_cast<double>(options_.max_queue_items));
  }
  const int scoring_threads =
      scorer_->info().thread_safe ? std::max(1, options_.scoring_threads) : 1;
  absl::MutexLock lock(&join_mu_);
  for (int i = 0; i < std::max(1, options_.preparing_threads); ++i) {
    threads_.emplace_back([this] { PrepareLoop(); });
  }
  for (int i = 0; i < scoring_threads; ++i) {
    threads_.emplace_back([this] { ScoreLoop(); });
  }
}

Batcher::~Batcher() { Abort(); }

absl::Status Batcher::Submit(std::shared_ptr<BatchCall> call) {
  const int64_t items = static_cast<int64_t>(call->items());
  if (items == 0) return absl::InvalidArgumentError("the call has no items");
  const int64_t bytes = BytesPerItem(*call) * items;
  if (items > options_.max_queue_items || bytes > options_.max_queue_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the call has ", items, " items of ", bytes, " bytes, the queue holds ",
                     options_.max_queue_items, " items of ", options_.max_queue_bytes, " bytes"));
  }
  std::vector<Dropped> dropped;
  absl::Status status;
  {
    absl::MutexLock lock(&mu_);
    auto fits = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return stats_.waiting_items + items <= options_.max_queue_items &&
             stats_.waiting_bytes + bytes <= options_.max_queue_bytes;
    };
    if (state_ == State::kRunning && !fits()) dropped = ExtractUnwanted();
    if (state_ != State::kRunning) {
      status = AbortedStatus();
    } else if (!fits()) {
      stats_.refused_items += items;
      CountItems("refused", items);
      status = absl::ResourceExhaustedError(absl::StrCat(
          "the queue of scorer ", info().name, " holds ", stats_.waiting_items, " items of ",
          stats_.waiting_bytes, " bytes; no room for ", items, " items of ", bytes, " bytes"));
    } else {
      stats_.waiting_items += items;
      stats_.waiting_bytes += bytes;
      if (options_.metrics != nullptr) {
        options_.metrics->queue_depth.Set(static_cast<double>(stats_.waiting_items));
      }
      const absl::Time now = options_.clock->Now();
      for (size_t i = 0; i < call->items(); ++i) queue_.Push(call->caller(), Item{call, i, now});
      may_prepare_.SignalAll();
    }
  }
  ReportDropped(std::move(dropped));
  return status;
}

void Batcher::Sweep() {
  std::vector<Dropped> dropped;
  {
    absl::MutexLock lock(&mu_);
    dropped = ExtractUnwanted();
  }
  ReportDropped(std::move(dropped));
}

void Batcher::Stop() {
  {
    absl::MutexLock lock(&mu_);
    if (state_ == State::kRunning) state_ = State::kStopping;
    may_prepare_.SignalAll();
    may_score_.SignalAll();
  }
  Join();
}

void Batcher::Abort() {
  std::vector<Dropped> dropped;
  {
    absl::MutexLock lock(&mu_);
    state_ = State::kAborted;
    while (!queue_.empty()) dropped.push_back({queue_.Pop(), AbortedStatus()});
    for (PreparedItem& prepared : prepared_) {
      dropped.push_back({std::move(prepared.item), AbortedStatus()});
    }
    prepared_.clear();
    prepared_bytes_ = 0;
    for (const Dropped& drop : dropped) StopWaiting(drop.item);
    may_prepare_.SignalAll();
    may_score_.SignalAll();
  }
  ReportDropped(std::move(dropped));
  Join();
}

void Batcher::Join() {
  absl::MutexLock lock(&join_mu_);
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

absl::Duration Batcher::RetryAfter() const {
  absl::MutexLock lock(&mu_);
  const absl::Duration estimate =
      absl::Seconds(seconds_per_item_ * static_cast<double>(stats_.waiting_items) /
                    std::max(1, options_.scoring_threads));
  return std::clamp(estimate, kShortestRetry, kLongestRetry);
}

BatcherStats Batcher::stats() const {
  absl::MutexLock lock(&mu_);
  return stats_;
}

bool Batcher::HasRoomToPrepare() const {
  return prepared_.size() + preparing_ < prepared_limit_ &&
         prepared_bytes_ < options_.max_prepared_bytes;
}

bool Batcher::InputsEnded() const {
  return state_ != State::kRunning && queue_.empty() && preparing_ == 0 && prepared_.empty();
}

bool Batcher::IsReadyToScore() const {
  return prepared_.size() >= batch_size_ || state_ != State::kRunning ||
         options_.clock->Now() >= prepared_.front().since + options_.max_batch_delay;
}

absl::Status Batcher::CheckWanted(const Item& item) const {
  if (item.call->cancelled()) return absl::CancelledError("the caller cancelled the call");
  if (options_.clock->Now() >= item.call->deadline()) {
    return absl::DeadlineExceededError("the call's deadline passed before its item's turn");
  }
  return absl::OkStatus();
}

std::vector<Batcher::Dropped> Batcher::ExtractUnwanted() {
  std::vector<Dropped> dropped;
  std::vector<Item> items =
      queue_.Extract([this](const Item& item) { return !CheckWanted(item).ok(); });
  std::deque<PreparedItem> kept;
  for (PreparedItem& prepared : prepared_) {
    if (CheckWanted(prepared.item).ok()) {
      kept.push_back(std::move(prepared));
    } else {
      prepared_bytes_ -= ImageBytes(prepared.input);
      items.push_back(std::move(prepared.item));
    }
  }
  prepared_ = std::move(kept);
  for (Item& item : items) {
    StopWaiting(item);
    absl::Status reason = CheckWanted(item);
    dropped.push_back({std::move(item), std::move(reason)});
  }
  may_prepare_.SignalAll();
  may_score_.SignalAll();
  return dropped;
}

void Batcher::StopWaiting(const Item& item) {
  --stats_.waiting_items;
  stats_.waiting_bytes -= BytesPerItem(*item.call);
  if (options_.metrics != nullptr) {
    options_.metrics->queue_depth.Set(static_cast<double>(stats_.waiting_items));
  }
}

void Batcher::CountItems(absl::string_view outcome, int64_t count) {
  if (options_.metrics != nullptr && count > 0) {
    options_.metrics->items[outcome].Increment(static_cast<double>(count));
  }
}

void Batcher::ReportDropped(std::vector<Dropped> dropped) {
  if (dropped.empty()) return;
  {
    absl::MutexLock lock(&mu_);
    stats_.dropped_items += static_cast<int64_t>(dropped.size());
  }
  CountItems("dropped", static_cast<int64_t>(dropped.size()));
  for (Dropped& drop : dropped) drop.item.call->OnDropped(drop.item.index, std::move(drop.reason));
}

void Batcher::PrepareLoop() {
  while (true) {
    Item item;
    {
      absl::MutexLock lock(&mu_);
      while (state_ != State::kAborted && (queue_.empty() || !HasRoomToPrepare())) {
        if (state_ == State::kStopping && queue_.empty()) return;
        may_prepare_.Wait(&mu_);
      }
      if (state_ == State::kAborted) return;
      item = queue_.Pop();
      ++preparing_;
    }
    absl::Status dropped = CheckWanted(item);
    absl::StatusOr<ScoringInput> input =
        dropped.ok() ? item.call->Prepare(item.index) : absl::StatusOr<ScoringInput>(dropped);
    bool is_prepared = false;
    {
      absl::MutexLock lock(&mu_);
      --preparing_;
      // Sweep and Abort did not see this item.
      if (dropped.ok()) dropped = state_ == State::kAborted ? AbortedStatus() : CheckWanted(item);
      is_prepared = dropped.ok() && input.ok();
      if (is_prepared) {
        prepared_bytes_ += ImageBytes(*input);
        prepared_.push_back({item, *std::move(input), options_.clock->Now()});
      } else {
        StopWaiting(item);
        if (dropped.ok()) {
          ++stats_.failed_items;
          CountItems("failed", 1);
        }
        // A place became free, or nothing more will come after this one.
        may_prepare_.SignalAll();
      }
      may_score_.SignalAll();
    }
    if (is_prepared) continue;
    if (dropped.ok()) {
      item.call->OnOutcome(item.index, input.status());
    } else {
      ReportDropped({{std::move(item), std::move(dropped)}});
    }
  }
}

void Batcher::ScoreLoop() {
  while (true) {
    std::vector<PreparedItem> batch = TakeBatch();
    if (batch.empty()) return;
    std::vector<PreparedItem> wanted;
    std::vector<Dropped> dropped;
    for (PreparedItem& prepared : batch) {
      absl::Status reason = CheckWanted(prepared.item);
      if (reason.ok()) {
        wanted.push_back(std::move(prepared));
      } else {
        dropped.push_back({std::move(prepared.item), std::move(reason)});
      }
    }
    ReportDropped(std::move(dropped));
    if (!wanted.empty()) Score(std::move(wanted));
  }
}

std::vector<Batcher::PreparedItem> Batcher::TakeBatch() {
  absl::MutexLock lock(&mu_);
  while (prepared_.empty() || !IsReadyToScore()) {
    if (InputsEnded()) return {};
    if (prepared_.empty()) {
      may_score_.Wait(&mu_);
    } else {
      options_.clock->WaitWithDeadline(&may_score_, &mu_,
                                       prepared_.front().since + options_.max_batch_delay);
    }
  }
  std::vector<PreparedItem> batch;
  while (!prepared_.empty() && batch.size() < batch_size_) {
    prepared_bytes_ -= ImageBytes(prepared_.front().input);
    StopWaiting(prepared_.front().item);
    batch.push_back(std::move(prepared_.front()));
    prepared_.pop_front();
  }
  may_prepare_.SignalAll();
  // Others may wait for the inputs that are left, or for the end.
  may_score_.SignalAll();
  return batch;
}

void Batcher::Score(std::vector<PreparedItem> batch) {
  std::vector<ScoringInput> inputs;
  inputs.reserve(batch.size());
  for (PreparedItem& prepared : batch) inputs.push_back(std::move(prepared.input));
  const absl::Time start = options_.clock->Now();
  std::vector<absl::StatusOr<ScoreValue>> outcomes = scorer_->ScoreBatch(inputs);
  const double seconds = absl::ToDoubleSeconds(options_.clock->Now() - start);
  if (options_.metrics != nullptr) {
    options_.metrics->batch_size.Observe(static_cast<double>(batch.size()));
    options_.metrics->compute_seconds.Observe(seconds);
    for (const PreparedItem& prepared : batch) {
      options_.metrics->queue_wait_seconds.Observe(
          absl::ToDoubleSeconds(start - prepared.item.arrived));
    }
  }
  if (outcomes.size() != batch.size()) {
    outcomes.assign(batch.size(), absl::InternalError(absl::StrCat(
                                      "scorer ", info().name, " gave ", outcomes.size(),
                                      " outcomes for ", batch.size(), " inputs")));
  }
  int64_t failed = 0;
  for (absl::StatusOr<ScoreValue>& outcome : outcomes) {
    outcome = CheckFinite(std::move(outcome), info().name);
    if (!outcome.ok()) ++failed;
  }
  const int64_t count = static_cast<int64_t>(batch.size());
  CountItems("scored", count - failed);
  CountItems("failed", failed);
  {
    absl::MutexLock lock(&mu_);
    stats_.scored_items += count - failed;
    stats_.failed_items += failed;
    ++stats_.batches;
    stats_.scoring_seconds += seconds;
    const double seconds_per_item = seconds / static_cast<double>(count);
    seconds_per_item_ =
        stats_.batches == 1
            ? seconds_per_item
            : seconds_per_item_ + kAverageWeight * (seconds_per_item - seconds_per_item_);
  }
  for (size_t i = 0; i < batch.size(); ++i) {
    batch[i].item.call->OnOutcome(batch[i].item.index, std::move(outcomes[i]));
  }
}

}  // namespace ddpo
