#include "actor/policy_replica.h"

#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "tests/actor/hooked_learner.h"

namespace ddpo {
namespace {

using testing::HookedLearner;

bool Never() { return false; }

class PolicyReplicaTest : public ::testing::Test {
 protected:
  PolicyReplicaTest() : metrics_(registry_) {
    learner_.subscribe = [](grpc::ServerContext* context, HookedLearner::PolicyWriter*) {
      return HookedLearner::StaySilent(context);
    };
    LearnerClientOptions options;
    options.address = learner_.address();
    options.actor_id = "actor-0";
    client_ = *LearnerClient::Create(options);
  }
  ~PolicyReplicaTest() override { client_->Abort(); }

  HookedLearner learner_;
  prometheus::Registry registry_;
  ActorMetrics metrics_;
  std::unique_ptr<LearnerClient> client_;
};

TEST_F(PolicyReplicaTest, KeepsNothingThatWasAskedForBeforeAReset) {
  std::atomic<int> fetches = 0;
  absl::Notification asked, reset;
  learner_.fetch = [&](grpc::ServerContext*, HookedLearner::PolicyWriter* writer) {
    const int fetch = ++fetches;
    if (fetch == 1) {
      asked.Notify();
      reset.WaitForNotification();
    }
    HookedLearner::SendPolicy(0, absl::StrCat("policy of generation ", fetch), writer);
    return grpc::Status::OK;
  };
  PolicyReplica replica(client_.get(), &metrics_, {.patience = absl::ZeroDuration()});
  replica.Reset();
  std::thread resetter([&] {
    asked.WaitForNotification();
    replica.Reset();
    reset.Notify();
  });
  EXPECT_TRUE(replica.WaitFor(0, Never).ok());
  resetter.join();
  const auto policy = replica.WaitFor(0, Never);
  ASSERT_TRUE(policy.ok()) << policy.status();
  EXPECT_EQ((*policy)->bytes, "policy of generation 2");
}

}  // namespace
}  // namespace ddpo
