#include "actor/call_watch.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace ddpo {
namespace {

constexpr absl::Duration kLook = absl::Milliseconds(20);

// The learner may say that the run is over before its last ack is here.
constexpr absl::Duration kGrace = absl::Seconds(1);

}  // namespace

CallWatch::CallWatch(CallRegistry::Call* call, absl::Duration patience,
                     std::function<bool()> cancelled)
    : call_(call),
      patience_(patience),
      cancelled_(std::move(cancelled)),
      thread_([this] { Run(); }) {}

CallWatch::~CallWatch() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
  }
  thread_.join();
}

void CallWatch::Progress() {
  absl::MutexLock lock(&mutex_);
  silent_ = absl::ZeroDuration();
}

absl::Status CallWatch::verdict() const {
  absl::MutexLock lock(&mutex_);
  return verdict_;
}

void CallWatch::Run() {
  absl::MutexLock lock(&mutex_);
  while (verdict_.ok() && !mutex_.AwaitWithTimeout(absl::Condition(&ending_), kLook)) {
    verdict_ = Look();
  }
  if (!verdict_.ok()) call_->context()->TryCancel();
}

absl::Status CallWatch::Look() {
  silent_ += kLook;
  unwanted_ = cancelled_ && cancelled_() ? unwanted_ + kLook : absl::ZeroDuration();
  if (unwanted_ >= kGrace) return absl::CancelledError("the call is of no use any more");
  if (silent_ < patience_) return absl::OkStatus();
  return absl::DeadlineExceededError(
      absl::StrCat("nothing came for ", absl::FormatDuration(patience_)));
}

}  // namespace ddpo
