#include "actor/stall_watch.h"

#include <utility>

namespace ddpo {
namespace {

// Looks within the limit. They are what is counted: a process that was stopped for an hour missed
// them too, and its work is not to blame.
constexpr int kLooks = 10;

}  // namespace

StallWatch::StallWatch(absl::Duration limit, Clock* clock)
    : limit_(limit), clock_(clock), thread_([this] { Run(); }) {}

StallWatch::~StallWatch() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
    ended_.Signal();
  }
  thread_.join();
}

StallWatch::Work::Work(StallWatch* watch, std::function<void()> on_stall) : watch_(watch) {
  absl::MutexLock lock(&watch_->mutex_);
  watch_->on_stall_ = std::move(on_stall);
  ++watch_->progress_;
}

StallWatch::Work::~Work() {
  absl::MutexLock lock(&watch_->mutex_);
  watch_->on_stall_ = nullptr;
}

void StallWatch::Progress() {
  absl::MutexLock lock(&mutex_);
  ++progress_;
}

void StallWatch::Run() {
  absl::MutexLock lock(&mutex_);
  int64_t seen = 0;
  int looks_in_vain = 0;
  while (true) {
    const absl::Time next_look = clock_->Now() + limit_ / kLooks;
    while (!ending_ && clock_->Now() < next_look) {
      clock_->WaitWithDeadline(&ended_, &mutex_, next_look);
    }
    if (ending_) return;
    if (on_stall_ == nullptr || progress_ != seen) {
      seen = progress_;
      looks_in_vain = 0;
    } else if (++looks_in_vain == kLooks) {
      on_stall_();
      on_stall_ = nullptr;
    }
  }
}

}  // namespace ddpo
