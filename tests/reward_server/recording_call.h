#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "reward_server/batcher.h"

namespace ddpo::testing {

// A call whose items have the given prompts; item i's image is i + 1 pixels wide. Preparing an item
// with the prompt "unreadable" fails.
class RecordingCall : public BatchCall {
 public:
  RecordingCall(std::string caller, std::vector<std::string> prompts,
                absl::Time deadline = absl::InfiniteFuture(), int64_t bytes = 0)
      : BatchCall(std::move(caller), deadline, prompts.size(), bytes),
        prompts_(std::move(prompts)),
        outcomes_(prompts_.size()),
        dropped_(prompts_.size()) {}

  absl::StatusOr<ScoringInput> Prepare(size_t index) override {
    {
      absl::MutexLock lock(&mu_);
      ++prepared_;
    }
    if (prompts_[index] == "unreadable") return absl::InvalidArgumentError("unreadable image");
    const int width = static_cast<int>(index) + 1;
    ScoringInput input;
    input.image = Image{width, 1, std::vector<uint8_t>(3 * static_cast<size_t>(width))};
    input.prompt = prompts_[index];
    return input;
  }

  void OnOutcome(size_t index, absl::StatusOr<ScoreValue> outcome) override {
    absl::MutexLock lock(&mu_);
    ++reports_;
    outcomes_[index] = std::move(outcome);
  }

  void OnDropped(size_t index, absl::Status reason) override {
    absl::MutexLock lock(&mu_);
    ++reports_;
    dropped_[index] = std::move(reason);
  }

  // Waits until each item was reported.
  void Await() {
    absl::MutexLock lock(&mu_);
    auto complete = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
      return reports_ >= static_cast<int>(items());
    };
    mu_.Await(absl::Condition(&complete));
  }
  bool AwaitFor(absl::Duration timeout) {
    absl::MutexLock lock(&mu_);
    auto complete = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
      return reports_ >= static_cast<int>(items());
    };
    return mu_.AwaitWithTimeout(absl::Condition(&complete), timeout);
  }
  void AwaitPrepared(int count) {
    absl::MutexLock lock(&mu_);
    auto reached = [&]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return prepared_ >= count; };
    mu_.Await(absl::Condition(&reached));
  }

  int reports() const {
    absl::MutexLock lock(&mu_);
    return reports_;
  }
  int prepared() const {
    absl::MutexLock lock(&mu_);
    return prepared_;
  }
  // What the scorer said; UNKNOWN if it was never asked.
  absl::StatusOr<ScoreValue> outcome(size_t index) const {
    absl::MutexLock lock(&mu_);
    return outcomes_[index].value_or(absl::UnknownError("no outcome"));
  }
  // Why the item was dropped; OK if it was not.
  absl::Status dropped(size_t index) const {
    absl::MutexLock lock(&mu_);
    return dropped_[index];
  }

 private:
  const std::vector<std::string> prompts_;
  mutable absl::Mutex mu_;
  int reports_ ABSL_GUARDED_BY(mu_) = 0;
  int prepared_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<std::optional<absl::StatusOr<ScoreValue>>> outcomes_ ABSL_GUARDED_BY(mu_);
  std::vector<absl::Status> dropped_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ddpo::testing
