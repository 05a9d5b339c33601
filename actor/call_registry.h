#pragma once

#include <grpcpp/client_context.h>

#include <memory>
#include <set>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace ddpo {

// The calls that a client has under way, so that another thread can end them. Thread-safe.
class CallRegistry {
 public:
  // A call's context, in the registry as long as it lives.
  class Call {
   public:
    Call(CallRegistry* registry, absl::Time deadline);
    ~Call();
    Call(const Call&) = delete;

    grpc::ClientContext* context() { return &context_; }

   private:
    CallRegistry* const registry_;
    grpc::ClientContext context_;
  };

  // The registry outlives the call.
  std::unique_ptr<Call> Start(absl::Time deadline) {
    return std::make_unique<Call>(this, deadline);
  }

  // Cancels the calls that are under way; later ones are not touched.
  void CancelAll();
  // Cancels them and all later ones.
  void Abort();
  bool aborted() const;

 private:
  mutable absl::Mutex mutex_;
  std::set<grpc::ClientContext*> calls_ ABSL_GUARDED_BY(mutex_);
  bool aborted_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace ddpo
