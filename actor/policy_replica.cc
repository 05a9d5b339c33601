#include "actor/policy_replica.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "common/base/logging.h"

namespace ddpo {
namespace {

// How often waiting is interrupted to ask whether it is still wanted.
constexpr absl::Duration kLook = absl::Milliseconds(20);

}  // namespace

PolicyReplica::PolicyReplica(LearnerClient* learner, ActorMetrics* metrics,
                             const PolicyReplicaOptions& options)
    : learner_(learner), metrics_(metrics), options_(options), thread_([this] { Run(); }) {}

PolicyReplica::~PolicyReplica() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
  }
  learner_->CancelStreams();
  thread_.join();
}

void PolicyReplica::Reset() {
  {
    absl::MutexLock lock(&mutex_);
    versions_.clear();
    ++resets_;
  }
  learner_->CancelStreams();
}

bool PolicyReplica::ResetOrEnding(int64_t resets) const {
  absl::MutexLock lock(&mutex_);
  return ending_ || resets_ != resets;
}

void PolicyReplica::Add(std::shared_ptr<const Policy> policy, int64_t resets) {
  absl::MutexLock lock(&mutex_);
  if (resets_ != resets) return;
  const int64_t version = policy->version;
  versions_[version] = std::move(policy);
  // What was asked for may be older than the newest ones: that one stays.
  for (auto it = versions_.begin(); it != versions_.end() && versions_.size() > options_.keep;) {
    it = it->first == version ? std::next(it) : versions_.erase(it);
  }
}

void PolicyReplica::Run() {
  absl::Duration pause = options_.first_pause;
  while (true) {
    int64_t resets = 0;
    int64_t have_version = -1;
    {
      absl::MutexLock lock(&mutex_);
      const auto wanted = [this] {
        mutex_.AssertHeld();
        return ending_ || resets_ > 0;
      };
      mutex_.Await(absl::Condition(&wanted));
      if (ending_) return;
      resets = resets_;
      if (!versions_.empty()) have_version = versions_.rbegin()->first;
    }
    const absl::Status status = learner_->Subscribe(
        have_version, options_.subscription,
        [&](Policy policy) {
          pause = options_.first_pause;
          LogDebug("got policy version ", policy.version);
          Add(std::make_shared<const Policy>(std::move(policy)), resets);
        },
        [&] { return ResetOrEnding(resets); });
    if (absl::IsDataLoss(status)) {
      metrics_->policies_refused.Increment();
      LogError("refused a policy: ", status.message());
    } else if (!absl::IsDeadlineExceeded(status)) {
      LogDebug("the subscription to policies ended: ", status.ToString());
    }
    absl::MutexLock lock(&mutex_);
    const auto interrupted = [this, resets] {
      mutex_.AssertHeld();
      return ending_ || resets_ != resets;
    };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&interrupted), pause)) {
      pause = std::min(pause * 2, options_.max_pause);
    }
  }
}

absl::StatusOr<std::shared_ptr<const Policy>> PolicyReplica::WaitFor(
    int64_t version, const std::function<bool()>& cancelled) {
  const absl::Time ask_at = absl::Now() + options_.patience;
  int64_t resets = 0;
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      const auto settled = [this, version] {
        mutex_.AssertHeld();
        return versions_.lower_bound(version) != versions_.end();
      };
      mutex_.AwaitWithTimeout(absl::Condition(&settled), kLook);
      if (const auto found = versions_.find(version); found != versions_.end()) {
        return found->second;
      }
      resets = resets_;
      // A newer one is here: the subscription has left this one out.
      if (versions_.upper_bound(version) != versions_.end()) break;
    }
    if (cancelled()) return absl::CancelledError("waiting for a policy was cancelled");
    if (absl::Now() >= ask_at) break;
  }
  auto fetched = learner_->FetchPolicy(version, cancelled);
  if (!fetched.ok()) {
    if (absl::IsDataLoss(fetched.status())) metrics_->policies_refused.Increment();
    return fetched.status();
  }
  auto policy = std::make_shared<const Policy>(*std::move(fetched));
  Add(policy, resets);
  return policy;
}

}  // namespace ddpo
