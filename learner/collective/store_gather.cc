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
// Living ranks notice a broken connection at about the same time.
constexpr absl::Duration kDiagnosis = absl::Seconds(3);

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
      timeout_(timeout) {}

std::string StoreGather::Key(const std::string& kind, int64_t number, int rank) const {
  return absl::StrCat(prefix_, "/", kind, "/", number, "/", rank);
}

absl::StatusOr<std::string> StoreGather::WaitFor(const std::string& key, absl::Time deadline) {
  // Looks again and again instead of waiting in the store: an abort has to be noticed, and
  // TCPStore writes a stack trace to the log whenever a wait ends without the key.
  absl::Duration poll = kShortestPoll;
  while (true) {
    if (aborted_) return absl::CancelledError("the collective was aborted");
    DDPO_ASSIGN_OR_RETURN(const bool there, store_->Contains(key));
    if (there) return store_->Get(key, timeout_);
    if (absl::Now() >= deadline) return absl::DeadlineExceededError(key);
    absl::SleepFor(poll);
    poll = std::min(2 * poll, kLongestPoll);
  }
}

absl::StatusOr<std::vector<std::string>> StoreGather::AllGather(const std::string& mine) {
  const int64_t number = gathers_++;
  DDPO_RETURN_IF_ERROR(store_->Set(Key("gather", number, rank_), mine));
  const absl::Time deadline = absl::Now() + timeout_;
  std::vector<std::string> values(size_);
  std::vector<int> missing;
  for (int rank = 0; rank < size_; ++rank) {
    auto value = WaitFor(Key("gather", number, rank), deadline);
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
                                               absl::FormatDuration(timeout_)));
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
  const absl::Time deadline = absl::Now() + kDiagnosis;
  std::vector<int> missing;
  for (int rank = 0; rank < size_; ++rank) {
    if (!WaitFor(Key("failed", call, rank), deadline).ok()) missing.push_back(rank);
  }
  if (missing.empty()) return absl::UnavailableError(absl::StrCat(what, " failed: ", cause));
  return absl::UnavailableError(
      absl::StrCat(what, " failed: ", RankList(missing), " of ", size_, " is gone (", cause, ")"));
}

}  // namespace ddpo
