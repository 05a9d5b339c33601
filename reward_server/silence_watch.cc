#include "reward_server/silence_watch.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"

namespace ddpo {

SilenceWatch::SilenceWatch(absl::Duration limit) : limit_(limit), thread_([this] { Run(); }) {}

SilenceWatch::~SilenceWatch() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
  }
  thread_.join();
}

absl::Time SilenceWatch::NextDeadline() const {
  // Waits that begin later end no earlier than this.
  absl::Time next = absl::Now() + limit_;
  for (const auto& [wait, watched] : waits_) {
    if (!watched.ended) next = std::min(next, watched.deadline);
  }
  return next;
}

void SilenceWatch::Run() {
  absl::MutexLock lock(&mutex_);
  while (!mutex_.AwaitWithDeadline(absl::Condition(&ending_), NextDeadline())) {
    for (auto& [wait, watched] : waits_) {
      if (watched.ended || watched.deadline > absl::Now()) continue;
      watched.ended = true;
      watched.end();
    }
  }
}

SilenceWatch::Wait::Wait(SilenceWatch* watch, std::function<void()> end) : watch_(watch) {
  absl::MutexLock lock(&watch_->mutex_);
  watch_->waits_[this] = {.end = std::move(end), .deadline = absl::Now() + watch_->limit_};
}

SilenceWatch::Wait::~Wait() {
  absl::MutexLock lock(&watch_->mutex_);
  watch_->waits_.erase(this);
}

}  // namespace ddpo
