// Linked into every program of the `tsan` preset. The distribution's Abseil and gRPC are compiled
// without ThreadSanitizer, so it sees no order in what absl::Mutex, absl::CondVar and
// absl::Notification order, and would report every access that they guard. The functions here take
// the place of Abseil's, call them, and tell the sanitizer.
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/base/options.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

#define DDPO_STRING_OF(name) #name
#define DDPO_STRING(name) DDPO_STRING_OF(name)

namespace {

// Abseil's own function of a mangled name, which is given without the namespaces.
template <typename Function>
Function* Real(const char* prefix, const char* name) {
#if ABSL_OPTION_USE_INLINE_NAMESPACE
  const std::string inline_namespace = DDPO_STRING(ABSL_OPTION_INLINE_NAMESPACE_NAME);
  const std::string place = std::to_string(inline_namespace.size()) + inline_namespace;
#else
#error "the mangled names below count on Abseil's inline namespace"
#endif
  const std::string symbol = std::string(prefix) + "4absl" + place + name;
  void* const address = dlsym(RTLD_NEXT, symbol.c_str());
  if (address == nullptr) {
    std::fprintf(stderr, "tsan_abseil: there is no %s\n", symbol.c_str());
    std::abort();
  }
  return reinterpret_cast<Function*>(address);
}

// The mutex that this thread works at: its holder evaluates conditions, also those of others.
thread_local void* current = nullptr;

// The real function lets go of the mutex, takes it, or both.
template <typename Call>
auto Releasing(void* mutex, Call call) {
  current = mutex;
  __tsan_release(mutex);
  return call();
}

template <typename Call>
auto Taking(void* mutex, Call call) {
  current = mutex;
  if constexpr (std::is_void_v<decltype(call())>) {
    call();
    __tsan_acquire(mutex);
  } else {
    const auto result = call();
    __tsan_acquire(mutex);
    return result;
  }
}

template <typename Call>
auto Waiting(void* mutex, Call call) {
  __tsan_release(mutex);
  return Taking(mutex, call);
}

}  // namespace

// The real function of a mangled name, as a reference that is looked up once.
#define DDPO_REAL(name, ...) static auto& real = *Real<__VA_ARGS__>("_ZN", name)

#define DDPO_CONDITION "ERKNS0_9ConditionE"

namespace absl {
ABSL_NAMESPACE_BEGIN

void Mutex::Lock() {
  DDPO_REAL("5Mutex4LockEv", void(Mutex*));
  Taking(this, [&] { real(this); });
}

void Mutex::Unlock() {
  DDPO_REAL("5Mutex6UnlockEv", void(Mutex*));
  Releasing(this, [&] { real(this); });
}

bool Mutex::TryLock() {
  DDPO_REAL("5Mutex7TryLockEv", bool(Mutex*));
  return Taking(this, [&] { return real(this); });
}

void Mutex::ReaderLock() {
  DDPO_REAL("5Mutex10ReaderLockEv", void(Mutex*));
  Taking(this, [&] { real(this); });
}

void Mutex::ReaderUnlock() {
  DDPO_REAL("5Mutex12ReaderUnlockEv", void(Mutex*));
  Releasing(this, [&] { real(this); });
}

bool Mutex::ReaderTryLock() {
  DDPO_REAL("5Mutex13ReaderTryLockEv", bool(Mutex*));
  return Taking(this, [&] { return real(this); });
}

void Mutex::Await(const Condition& condition) {
  DDPO_REAL("5Mutex5Await" DDPO_CONDITION, void(Mutex*, const Condition&));
  Waiting(this, [&] { real(this, condition); });
}

bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  DDPO_REAL("5Mutex16AwaitWithTimeout" DDPO_CONDITION "NS0_8DurationE",
            bool(Mutex*, const Condition&, Duration));
  return Waiting(this, [&] { return real(this, condition, timeout); });
}

bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  DDPO_REAL("5Mutex17AwaitWithDeadline" DDPO_CONDITION "NS0_4TimeE",
            bool(Mutex*, const Condition&, Time));
  return Waiting(this, [&] { return real(this, condition, deadline); });
}

void Mutex::LockWhen(const Condition& condition) {
  DDPO_REAL("5Mutex8LockWhen" DDPO_CONDITION, void(Mutex*, const Condition&));
  Taking(this, [&] { real(this, condition); });
}

bool Mutex::LockWhenWithTimeout(const Condition& condition, Duration timeout) {
  DDPO_REAL("5Mutex19LockWhenWithTimeout" DDPO_CONDITION "NS0_8DurationE",
            bool(Mutex*, const Condition&, Duration));
  return Taking(this, [&] { return real(this, condition, timeout); });
}

bool Mutex::LockWhenWithDeadline(const Condition& condition, Time deadline) {
  DDPO_REAL("5Mutex20LockWhenWithDeadline" DDPO_CONDITION "NS0_4TimeE",
            bool(Mutex*, const Condition&, Time));
  return Taking(this, [&] { return real(this, condition, deadline); });
}

bool Condition::Eval() const {
  static auto& real = *Real<bool(const Condition*)>("_ZNK", "9Condition4EvalEv");
  if (current == nullptr) return real(this);
  void* const mutex = current;
  __tsan_acquire(mutex);
  const bool result = real(this);
  __tsan_release(mutex);
  return result;
}

void CondVar::Wait(Mutex* mutex) {
  DDPO_REAL("7CondVar4WaitEPNS0_5MutexE", void(CondVar*, Mutex*));
  Waiting(mutex, [&] { real(this, mutex); });
}

bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  DDPO_REAL("7CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE",
            bool(CondVar*, Mutex*, Duration));
  return Waiting(mutex, [&] { return real(this, mutex, timeout); });
}

bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  DDPO_REAL("7CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE", bool(CondVar*, Mutex*, Time));
  return Waiting(mutex, [&] { return real(this, mutex, deadline); });
}

void Notification::Notify() {
  DDPO_REAL("12Notification6NotifyEv", void(Notification*));
  Releasing(this, [&] { real(this); });
}

void Notification::WaitForNotification() const {
  static auto& real =
      *Real<void(const Notification*)>("_ZNK", "12Notification19WaitForNotificationEv");
  real(this);
  __tsan_acquire(const_cast<Notification*>(this));
}

bool Notification::WaitForNotificationWithTimeout(Duration timeout) const {
  static auto& real = *Real<bool(const Notification*, Duration)>(
      "_ZNK", "12Notification30WaitForNotificationWithTimeoutENS0_8DurationE");
  const bool notified = real(this, timeout);
  __tsan_acquire(const_cast<Notification*>(this));
  return notified;
}

ABSL_NAMESPACE_END
}  // namespace absl
