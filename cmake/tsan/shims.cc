// Linked into every program of the `tsan` preset. The distribution's Abseil and gRPC are compiled
// without ThreadSanitizer, so it sees no order in what absl::Mutex, absl::CondVar,
// absl::Notification and the callbacks of gRPC order, and would report every access that they
// guard. The functions here take the place of the libraries' own, call them, and tell the
// sanitizer.
#include <dlfcn.h>
#include <grpc/impl/codegen/grpc_types.h>
#include <sanitizer/tsan_interface.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <type_traits>

#include "absl/base/options.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

#define DDPO_STRING_OF(name) #name
#define DDPO_STRING(name) DDPO_STRING_OF(name)

namespace {

// The library's own function of a symbol.
template <typename Function>
Function* Real(const std::string& symbol) {
  void* const address = dlsym(RTLD_NEXT, symbol.c_str());
  if (address == nullptr) {
    std::fprintf(stderr, "tsan/shims: there is no %s\n", symbol.c_str());
    std::abort();
  }
  return reinterpret_cast<Function*>(address);
}

// Abseil's own function of a mangled name, which is given without the namespaces.
template <typename Function>
Function* Real(const char* prefix, const char* name) {
#if ABSL_OPTION_USE_INLINE_NAMESPACE
  const std::string inline_namespace = DDPO_STRING(ABSL_OPTION_INLINE_NAMESPACE_NAME);
  const std::string place = std::to_string(inline_namespace.size()) + inline_namespace;
#else
#error "the mangled names below count on Abseil's inline namespace"
#endif
  return Real<Function>(std::string(prefix) + "4absl" + place + name);
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
  current = mutex;  // the condition may have locked another
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

// A callback comes after the call that asked for it.
#define DDPO_CALLBACK_RUN \
  "_ZN4grpc8internal22CallbackWithSuccessTag9StaticRunEP29grpc_completion_queue_functori"

extern "C" {

grpc_call_error grpc_call_start_batch(grpc_call* call, const grpc_op* operations, size_t count,
                                      void* tag, void* reserved) {
  static auto& real = *Real<decltype(grpc_call_start_batch)>("grpc_call_start_batch");
  __tsan_release(tag);
  return real(call, operations, count, tag, reserved);
}

void RunCallback(grpc_completion_queue_functor* tag, int ok) __asm__(DDPO_CALLBACK_RUN);
void RunCallback(grpc_completion_queue_functor* tag, int ok) {
  static auto& real = *Real<void(grpc_completion_queue_functor*, int)>(DDPO_CALLBACK_RUN);
  __tsan_acquire(tag);
  real(tag, ok);
}

// Without it the sanitizer would take what libraries do by themselves for our programs' doing.
const char* __tsan_default_options() { return "ignore_noninstrumented_modules=1"; }

// Of gRPC: the last callback of a call runs, and its parts go, when it has counted that all others
// are through; and a client's callback comes after the call that asked for it, with its response.
// Of LibTorch: a weight that several threads' graphs use is marked as used, with the same `true` by
// each.
const char* __tsan_default_suppressions() {
  return "race:CallOnDone\n"
         "race:Impl::~ServerCallback\n"
         "race:internal::CallbackWithStatusTag::Run\n"
         "race:torch::autograd::Node::topological_nr\n";
}

}  // extern "C"
