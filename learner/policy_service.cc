#include "learner/policy_service.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/rpc/status.h"

namespace ddpo {
namespace {

using cluster::v1::PolicyChunk;

constexpr size_t kChunkBytes = 1 << 20;

// Sends one policy, or with a store to follow, the newest one and every later one. Deletes itself.
class PolicyReactor : public grpc::ServerWriteReactor<PolicyChunk> {
 public:
  // One policy.
  explicit PolicyReactor(std::shared_ptr<const PublishedPolicy> policy) {
    absl::MutexLock lock(&mutex_);
    Begin(std::move(policy));
    SendNext();
  }

  // All from the one after `have_version` on. The store outlives the call.
  PolicyReactor(PolicyStore* store, int64_t have_version)
      : store_(store), sent_version_(have_version) {
    listener_ = store->AddListener([this] {
      absl::MutexLock lock(&mutex_);
      if (idle_) SendNext();
    });
    absl::MutexLock lock(&mutex_);
    if (idle_) SendNext();
  }

  // Ends at once with an error.
  explicit PolicyReactor(const absl::Status& error) {
    absl::MutexLock lock(&mutex_);
    // Not Finish alone: a call that is cancelled now must not be finished twice.
    End(ToGrpcStatus(error));
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    if (!ok) cancelled_ = true;
    SendNext();
  }

  void OnCancel() override {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    if (idle_) SendNext();
  }

  void OnDone() override {
    if (store_ != nullptr) store_->RemoveListener(listener_);
    // The thread that called Finish may still be on its way out of the lock.
    { absl::MutexLock lock(&mutex_); }
    delete this;
  }

 private:
  void Begin(std::shared_ptr<const PublishedPolicy> policy) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    policy_ = std::move(policy);
    header_sent_ = false;
    offset_ = 0;
  }

  // Starts the next write, goes idle, or finishes. No write is under way.
  void SendNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (finished_) return;
    idle_ = false;
    if (cancelled_) return End(grpc::Status::CANCELLED);
    if (policy_ != nullptr && header_sent_ && offset_ == policy_->bytes.size()) {
      sent_version_ = policy_->version;
      policy_ = nullptr;
      if (store_ == nullptr) return End(grpc::Status::OK);
    }
    if (policy_ == nullptr) {
      std::shared_ptr<const PublishedPolicy> newest = store_->Newest();
      if (newest == nullptr || newest->version <= sent_version_) {
        idle_ = true;
        return;
      }
      Begin(std::move(newest));
    }
    chunk_.Clear();
    if (!header_sent_) {
      cluster::v1::PolicyHeader* header = chunk_.mutable_header();
      header->set_version(policy_->version);
      header->set_total_bytes(static_cast<int64_t>(policy_->bytes.size()));
      header->set_sha256(policy_->sha256);
      header_sent_ = true;
    } else {
      const size_t count = std::min(kChunkBytes, policy_->bytes.size() - offset_);
      chunk_.set_data(policy_->bytes.substr(offset_, count));
      offset_ += count;
    }
    StartWrite(&chunk_);
  }

  void End(const grpc::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    finished_ = true;
    Finish(status);
  }

  PolicyStore* const store_ = nullptr;
  int64_t listener_ = -1;
  absl::Mutex mutex_;
  std::shared_ptr<const PublishedPolicy> policy_ ABSL_GUARDED_BY(mutex_);  // being sent
  size_t offset_ ABSL_GUARDED_BY(mutex_) = 0;
  bool header_sent_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t sent_version_ ABSL_GUARDED_BY(mutex_) = -1;
  PolicyChunk chunk_ ABSL_GUARDED_BY(mutex_);
  bool idle_ ABSL_GUARDED_BY(mutex_) = true;  // no write is under way
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

grpc::ServerWriteReactor<PolicyChunk>* PolicyService::Subscribe(
    grpc::CallbackServerContext*, const cluster::v1::SubscribeRequest* request) {
  const absl::Status sender =
      coordinator_->CheckSender(request->actor_id(), request->incarnation(), request->generation());
  if (!sender.ok()) return new PolicyReactor(sender);
  return new PolicyReactor(store_, request->have_version());
}

grpc::ServerWriteReactor<PolicyChunk>* PolicyService::FetchPolicy(
    grpc::CallbackServerContext*, const cluster::v1::FetchPolicyRequest* request) {
  const absl::Status sender =
      coordinator_->CheckSender(request->actor_id(), request->incarnation(), request->generation());
  if (!sender.ok()) return new PolicyReactor(sender);
  auto policy = store_->Find(request->version());
  if (!policy.ok()) return new PolicyReactor(policy.status());
  return new PolicyReactor(*std::move(policy));
}

grpc::ServerUnaryReactor* PolicyService::AckPolicy(grpc::CallbackServerContext* context,
                                                   const cluster::v1::AckPolicyRequest* request,
                                                   cluster::v1::AckPolicyResponse*) {
  absl::Status status =
      coordinator_->CheckSender(request->actor_id(), request->incarnation(), request->generation());
  if (status.ok()) {
    if (auto policy = store_->Find(request->version()); !policy.ok()) {
      status = policy.status();
    } else if ((*policy)->sha256 != request->sha256()) {
      status = absl::DataLossError(absl::StrCat("policy version ", request->version(),
                                                " has digest ", (*policy)->sha256,
                                                ", the actor got ", request->sha256()));
    } else {
      status = coordinator_->AckPolicy(*request);
    }
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

}  // namespace ddpo
