#include "learner/collective/store_gather.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

// Waits between two looks at the store: short at first, as ranks are mostly at the same point.
constexpr absl::Duration kShortestPoll = absl::Milliseconds(1);
constexpr absl::Duration kLongestPoll = absl::Milliseconds(50);
constexpr absl::Duration kHeartbeat = absl::Milliseconds(250);
// Long for a process that only lacks a processor for a while.
constexpr absl::Duration kSilence = absl::Seconds(5);
// What a rank says last when all is well.
constexpr char kLeft[] = "it left";

std::string RankList(const std::vector<int>& ranks) {
  return absl::StrCat(ranks.size() == 1 ? "rank " : "ranks ", absl::StrJoin(ranks, ", "));
}

}  // namespace

StoreGather::StoreGather(std::shared_ptr<KeyValueStore> store, std::string prefix, int rank,
                         int size, absl::Duration timeout)
    : store_(std::move(store)),
      prefix_(std::move(prefix)),
      rank_(rank),
      size_(size),
      timeout_(timeout),
      silence_(std::min(timeout, kSilence)) {}

StoreGather::~StoreGather() {
  StopBeating();
  if (!told_) (void)store_->Set(Key("gone", rank_), "it ended");
}

std::string StoreGather::Key(const std::string& kind, int rank) const {
  return absl::StrCat(prefix_, "/", kind, "/", rank);
}

std::string StoreGather::Key(const std::string& kind, int64_t number, int rank) const {
  return absl::StrCat(prefix_, "/", kind, "/", number, "/", rank);
}

absl::Status StoreGather::Gone(int rank, const std::string& why) const {
  return absl::UnavailableError(absl::StrCat("rank ", rank, " of ", size_, " is gone: ", why));
}

absl::Status StoreGather::Verdict(int rank) const {
  absl::MutexLock lock(&mutex_);
  const auto peer = peers_.find(rank);
  if (peer == peers_.end() || peer->second.gone.empty()) return absl::OkStatus();
  return Gone(rank, peer->second.gone);
}

absl::Status StoreGather::Lost() const {
  absl::MutexLock lock(&mutex_);
  return LostLocked();
}

absl::Status StoreGather::LostLocked() const {
  for (const auto& [rank, peer] : peers_) {
    if (!peer.gone.empty() && peer.gone != kLeft) return Gone(rank, peer.gone);
  }
  return store_state_;
}

void StoreGather::WakeIfLost() {
  if (wake_ != nullptr && !LostLocked().ok()) std::exchange(wake_, nullptr)();
}

StoreGather::Watch::Watch(StoreGather* gather, std::function<void()> wake) : gather_(gather) {
  absl::MutexLock lock(&gather_->mutex_);
  gather_->wake_ = std::move(wake);
  gather_->WakeIfLost();
}

StoreGather::Watch::~Watch() {
  absl::MutexLock lock(&gather_->mutex_);
  gather_->wake_ = nullptr;
}

absl::Status StoreGather::LookAt(int rank) {
  std::string gone;
  DDPO_ASSIGN_OR_RETURN(const bool told, store_->Contains(Key("gone", rank)));
  if (told) {
    DDPO_ASSIGN_OR_RETURN(gone, store_->Get(Key("gone", rank), timeout_));
  }
  std::string heartbeat;
  DDPO_ASSIGN_OR_RETURN(const bool came, store_->Contains(Key("alive", rank)));
  if (came) {
    DDPO_ASSIGN_OR_RETURN(heartbeat, store_->Get(Key("alive", rank), timeout_));
  }
  absl::MutexLock lock(&mutex_);
  Peer& peer = peers_[rank];
  peer.silent_looks = heartbeat == peer.heartbeat ? peer.silent_looks + 1 : 0;
  peer.heartbeat = std::move(heartbeat);
  if (gone.empty() && came && peer.silent_looks * kHeartbeat > silence_) {
    gone = absl::StrCat("it has been silent for ", absl::FormatDuration(silence_));
  }
  peer.gone = std::move(gone);
  return absl::OkStatus();
}

absl::Status StoreGather::BeatOnce(int64_t beat) {
  DDPO_RETURN_IF_ERROR(store_->Set(Key("alive", rank_), absl::StrCat(beat)));
  for (int rank = 0; rank < size_; ++rank) {
    if (rank != rank_) DDPO_RETURN_IF_ERROR(LookAt(rank));
  }
  return absl::OkStatus();
}

void StoreGather::Beat() {
  for (int64_t beat = 0;; ++beat) {
    const absl::Status state = BeatOnce(beat);
    const auto stopped = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !beating_; };
    absl::MutexLock lock(&mutex_);
    store_state_ = state;
    WakeIfLost();
    // Without the store there is nothing more to see.
    if (!state.ok() || mutex_.AwaitWithTimeout(absl::Condition(&stopped), kHeartbeat)) return;
  }
}

void StoreGather::StopBeating() {
  {
    absl::MutexLock lock(&mutex_);
    beating_ = false;
  }
  if (heart_.joinable()) heart_.join();
}

absl::Status StoreGather::Meet(absl::Duration timeout) {
  DDPO_ASSIGN_OR_RETURN(const int64_t comers, store_->Count(Key("seat", rank_)));
  if (comers > 1) {
    told_ = true;  // what is said of this rank is the other's
    return absl::UnavailableError(absl::StrCat("rank ", rank_, " has been in the group ", prefix_,
                                               " before: that group is about to end"));
  }
  {
    absl::MutexLock lock(&mutex_);
    beating_ = true;
  }
  heart_ = std::thread([this] { Beat(); });
  return Gather("here", timeout).status();
}

absl::StatusOr<std::string> StoreGather::WaitFor(const std::string& key,
                                                 const std::function<absl::Status()>& hope,
                                                 absl::Time deadline) {
  // Looks again and again instead of waiting in the store: that would hold up the heartbeat, an
  // abort has to be noticed, and TCPStore writes a stack trace to the log whenever a wait ends
  // without the key.
  absl::Duration poll = kShortestPoll;
  while (true) {
    if (aborted_) return absl::CancelledError("the collective was aborted");
    const bool late = absl::Now() >= deadline;
    // Before the key: a rank may have set it and gone.
    const absl::Status verdict = hope();
    DDPO_ASSIGN_OR_RETURN(const bool there, store_->Contains(key));
    if (there) return store_->Get(key, timeout_);
    DDPO_RETURN_IF_ERROR(verdict);
    if (late) return absl::DeadlineExceededError(key);
    absl::SleepFor(poll);
    poll = std::min(2 * poll, kLongestPoll);
  }
}

absl::StatusOr<std::vector<std::string>> StoreGather::Gather(const std::string& mine,
                                                             absl::Duration timeout) {
  const int64_t number = gathers_++;
  DDPO_RETURN_IF_ERROR(store_->Set(Key("gather", number, rank_), mine));
  const absl::Time deadline = absl::Now() + timeout;
  std::vector<std::string> values(size_);
  std::vector<int> missing;
  for (int rank = 0; rank < size_; ++rank) {
    if (rank == rank_) {
      values[rank] = mine;
      continue;
    }
    auto value = WaitForRank(Key("gather", number, rank), rank, deadline);
    if (value.ok()) {
      values[rank] = *std::move(value);
    } else if (absl::IsDeadlineExceeded(value.status())) {
      missing.push_back(rank);
    } else {
      return value.status();
    }
  }
  if (!missing.empty()) {
    return absl::UnavailableError(absl::StrCat(RankList(missing), " of ", size_,
                                               " did not answer within ",
                                               absl::FormatDuration(timeout)));
  }
  // A value older than two gathers has been read by everyone: all ranks came past the last one.
  if (number >= 2) DDPO_RETURN_IF_ERROR(store_->Delete(Key("gather", number - 2, rank_)));
  return values;
}

absl::Status StoreGather::Diagnose(int64_t call, const std::string& what,
                                   const std::string& cause) {
  const absl::Status reported = store_->Set(Key("failed", call, rank_), "1");
  if (!reported.ok()) {
    return absl::UnavailableError(
        absl::StrCat(what, " failed and rank 0, which serves the store, is gone: ", cause));
  }
  std::vector<std::string> gone, elsewhere;
  for (int rank = 0; rank < size_; ++rank) {
    if (rank == rank_) continue;
    // Time enough to be sure of a rank's silence.
    const absl::Time deadline = absl::Now() + silence_ + 4 * kHeartbeat;
    const absl::Status found = WaitForRank(Key("failed", call, rank), rank, deadline).status();
    if (absl::IsDeadlineExceeded(found)) elsewhere.push_back(absl::StrCat(rank));
    if (absl::IsUnavailable(found)) gone.emplace_back(found.message());
  }
  if (!gone.empty()) {
    return absl::UnavailableError(
        absl::StrCat(what, " failed: ", absl::StrJoin(gone, "; "), " (", cause, ")"));
  }
  if (!elsewhere.empty()) {
    return absl::UnavailableError(absl::StrCat(what, " failed: of ", size_,
                                               " ranks these are alive but did not come: ",
                                               absl::StrJoin(elsewhere, ", "), " (", cause, ")"));
  }
  return absl::UnavailableError(absl::StrCat(what, " failed: ", cause));
}

absl::Status StoreGather::Leave() {
  told_ = true;
  DDPO_RETURN_IF_ERROR(store_->Set(Key("gone", rank_), kLeft));
  // The others' calls may still be under way, and so is their last look at the store.
  for (int rank = 1; rank_ == 0 && rank < size_; ++rank) {
    const auto left = WaitForRank(Key("gone", rank), rank, absl::Now() + timeout_);
    if (!left.ok()) return left.status();
  }
  StopBeating();
  return absl::OkStatus();
}

void StoreGather::Abort(const std::string& why) {
  told_ = true;
  (void)store_->Set(Key("gone", rank_), why);
  aborted_ = true;
}

}  // namespace ddpo
