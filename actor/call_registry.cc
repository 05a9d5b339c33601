#include "actor/call_registry.h"

namespace ddpo {

CallRegistry::Call::Call(CallRegistry* registry, absl::Time deadline) : registry_(registry) {
  context_.set_deadline(absl::ToChronoTime(deadline));
  absl::MutexLock lock(&registry_->mutex_);
  registry_->calls_.insert(&context_);
  if (registry_->aborted_) context_.TryCancel();
}

CallRegistry::Call::~Call() {
  absl::MutexLock lock(&registry_->mutex_);
  registry_->calls_.erase(&context_);
}

void CallRegistry::CancelAll() {
  absl::MutexLock lock(&mutex_);
  for (grpc::ClientContext* context : calls_) context->TryCancel();
}

void CallRegistry::Abort() {
  absl::MutexLock lock(&mutex_);
  aborted_ = true;
  for (grpc::ClientContext* context : calls_) context->TryCancel();
}

bool CallRegistry::aborted() const {
  absl::MutexLock lock(&mutex_);
  return aborted_;
}

}  // namespace ddpo
