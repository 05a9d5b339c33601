#pragma once

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "reward_server/scorer.h"

namespace ddpo::testing {

// What a test and its scorer, which a batcher owns, share: holds batches back, remembers them.
class FakeScorerControl {
 public:
  // The scorer computes nothing until Open.
  void Close() {
    absl::MutexLock lock(&mu_);
    open_ = false;
  }
  void Open() {
    absl::MutexLock lock(&mu_);
    open_ = true;
  }

  // Waits until the scorer has been called so many times.
  void AwaitCalls(int calls) {
    absl::MutexLock lock(&mu_);
    auto reached = [&]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
      return static_cast<int>(batches_.size()) >= calls;
    };
    mu_.Await(absl::Condition(&reached));
  }

  // The prompts of each batch, in the order of the calls.
  std::vector<std::vector<std::string>> batches() const {
    absl::MutexLock lock(&mu_);
    return batches_;
  }

  void Enter(absl::Span<const ScoringInput> inputs) {
    std::vector<std::string> prompts;
    for (const ScoringInput& input : inputs) prompts.push_back(input.prompt);
    absl::MutexLock lock(&mu_);
    batches_.push_back(std::move(prompts));
    mu_.Await(absl::Condition(&open_));
  }

 private:
  mutable absl::Mutex mu_;
  bool open_ ABSL_GUARDED_BY(mu_) = true;
  std::vector<std::vector<std::string>> batches_ ABSL_GUARDED_BY(mu_);
};

// Scores an image with its width. The prompts "fail", "nan" and "short" make it return an error, a
// value that is not a number, and no outcome at all.
class FakeScorer : public Scorer {
 public:
  FakeScorer(FakeScorerControl* control, ScorerInfo info)
      : control_(control), info_(std::move(info)) {}

  static ScorerInfo DefaultInfo() {
    ScorerInfo info;
    info.name = "width";
    info.kind = "fake";
    info.description = "The image's width.";
    info.digest = "d1";
    info.max_batch_size = 4;
    return info;
  }

  const ScorerInfo& info() const override { return info_; }

  std::vector<absl::StatusOr<ScoreValue>> ScoreBatch(
      absl::Span<const ScoringInput> inputs) override {
    control_->Enter(inputs);
    std::vector<absl::StatusOr<ScoreValue>> outcomes;
    for (const ScoringInput& input : inputs) {
      if (input.prompt == "short") continue;
      if (input.prompt == "fail") {
        outcomes.push_back(absl::FailedPreconditionError("asked to fail"));
        continue;
      }
      ScoreValue value;
      value.value = input.prompt == "nan" ? std::numeric_limits<double>::quiet_NaN()
                                          : static_cast<double>(input.image.width);
      outcomes.push_back(std::move(value));
    }
    return outcomes;
  }

 private:
  FakeScorerControl* const control_;
  const ScorerInfo info_;
};

}  // namespace ddpo::testing
