#include "learner/policy_store.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/sha256.h"

namespace ddpo {

std::shared_ptr<const PublishedPolicy> PolicyStore::Publish(int64_t version, std::string bytes) {
  std::string sha256 = Sha256Hex(bytes);
  auto policy = std::make_shared<const PublishedPolicy>(
      PublishedPolicy{version, std::move(bytes), std::move(sha256)});
  {
    absl::MutexLock lock(&mutex_);
    versions_[version] = policy;
    while (static_cast<int64_t>(versions_.size()) > keep_) versions_.erase(versions_.begin());
  }
  absl::MutexLock lock(&listeners_mutex_);
  for (const auto& [id, listener] : listeners_) listener();
  return policy;
}

absl::StatusOr<std::shared_ptr<const PublishedPolicy>> PolicyStore::Find(int64_t version) const {
  absl::MutexLock lock(&mutex_);
  const auto found = versions_.find(version);
  if (found != versions_.end()) return found->second;
  if (versions_.empty()) return absl::NotFoundError("no policy is published yet");
  return absl::NotFoundError(absl::StrCat("policy version ", version, " is not kept; there are ",
                                          versions_.begin()->first, " … ",
                                          versions_.rbegin()->first));
}

std::shared_ptr<const PublishedPolicy> PolicyStore::Newest() const {
  absl::MutexLock lock(&mutex_);
  return versions_.empty() ? nullptr : versions_.rbegin()->second;
}

int64_t PolicyStore::AddListener(std::function<void()> listener) {
  absl::MutexLock lock(&listeners_mutex_);
  listeners_[next_listener_] = std::move(listener);
  return next_listener_++;
}

void PolicyStore::RemoveListener(int64_t id) {
  absl::MutexLock lock(&listeners_mutex_);
  listeners_.erase(id);
}

}  // namespace ddpo
