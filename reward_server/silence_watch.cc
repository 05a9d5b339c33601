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
  // Streams that come later are no earlier than this.
  absl::Time next = absl::Now() + limit_;
  for (const auto& [stream, watched] : streams_) {
    if (!watched.ended) next = std::min(next, watched.deadline);
  }
  return next;
}

void SilenceWatch::Run() {
  absl::MutexLock lock(&mutex_);
  while (!mutex_.AwaitWithDeadline(absl::Condition(&ending_), NextDeadline())) {
    for (auto& [stream, watched] : streams_) {
      if (watched.ended || watched.deadline > absl::Now()) continue;
      watched.ended = true;
      watched.end();
    }
  }
}

SilenceWatch::Stream::Stream(SilenceWatch* watch, std::function<void()> end) : watch_(watch) {
  absl::MutexLock lock(&watch_->mutex_);
  watch_->streams_[this] = {.end = std::move(end), .deadline = absl::Now() + watch_->limit_};
}

SilenceWatch::Stream::~Stream() {
  absl::MutexLock lock(&watch_->mutex_);
  watch_->streams_.erase(this);
}

void SilenceWatch::Stream::Heard() {
  absl::MutexLock lock(&watch_->mutex_);
  watch_->streams_.at(this).deadline = absl::Now() + watch_->limit_;
}

bool SilenceWatch::Stream::ended() const {
  absl::MutexLock lock(&watch_->mutex_);
  return watch_->streams_.at(this).ended;
}

}  // namespace ddpo
