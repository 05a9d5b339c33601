#include "common/base/shutdown.h"

#include <csignal>
#include <ctime>
#include <utility>

namespace ddpo {
namespace {

sigset_t HandledSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

}  // namespace

ShutdownSignal::ShutdownSignal() {
  const sigset_t signals = HandledSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  thread_ = std::thread([this] { Run(); });
}

ShutdownSignal::~ShutdownSignal() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
  }
  thread_.join();
}

void ShutdownSignal::Run() {
  const sigset_t signals = HandledSignals();
  while (true) {
    timespec wait{0, 50'000'000};
    const int signal = sigtimedwait(&signals, nullptr, &wait);
    if (signal == SIGTERM || signal == SIGINT) Count();
    absl::MutexLock lock(&mutex_);
    if (ending_) return;
  }
}

void ShutdownSignal::Count() {
  std::function<void(int)> callback;
  int count = 0;
  {
    absl::MutexLock lock(&mutex_);
    count = ++count_;
    callback = callback_;
    ++running_callbacks_;
  }
  if (callback) callback(count);
  absl::MutexLock lock(&mutex_);
  --running_callbacks_;
}

int ShutdownSignal::count() const {
  absl::MutexLock lock(&mutex_);
  return count_;
}

bool ShutdownSignal::WaitFor(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const auto signalled = [this] {
    mutex_.AssertReaderHeld();
    return count_ > 0;
  };
  return mutex_.AwaitWithTimeout(absl::Condition(&signalled), timeout);
}

void ShutdownSignal::OnSignal(std::function<void(int)> callback) {
  int count = 0;
  {
    absl::MutexLock lock(&mutex_);
    callback_ = callback;
    count = count_;
    const auto none_runs = [this] {
      mutex_.AssertReaderHeld();
      return running_callbacks_ == 0;
    };
    mutex_.Await(absl::Condition(&none_runs));
  }
  for (int signal = 1; signal <= count; ++signal) callback(signal);
}

void ShutdownSignal::Request() { Count(); }

}  // namespace ddpo
