#include "actor/learner_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/actor/hooked_learner.h"

namespace ddpo {
namespace {

using ::testing::ElementsAre;

using testing::HookedLearner;

class LearnerClientTest : public ::testing::Test {
 protected:
  ~LearnerClientTest() override {
    if (client_ != nullptr) client_->Abort();
  }

  LearnerClient& Client(absl::Duration call_timeout = absl::Seconds(20)) {
    LearnerClientOptions options;
    options.address = learner_.address();
    options.actor_id = "actor-0";
    options.incarnation = 1;
    options.call_timeout = call_timeout;
    client_ = *LearnerClient::Create(options);
    return *client_;
  }

  // Delivers samples 0, 1, …; the acks' indices are in acked_.
  absl::Status Deliver(int count, absl::Duration timeout = absl::InfiniteDuration(),
                       const std::function<bool()>& cancelled = {}) {
    std::vector<cluster::v1::TrajectorySample> samples(static_cast<size_t>(count));
    std::vector<const cluster::v1::TrajectorySample*> pointers;
    for (int i = 0; i < count; ++i) {
      samples[static_cast<size_t>(i)].set_sample_index(i);
      pointers.push_back(&samples[static_cast<size_t>(i)]);
    }
    return Client().Deliver(
        "", pointers, timeout,
        [this](const cluster::v1::SampleAck& ack) { acked_.push_back(ack.sample_index()); },
        cancelled);
  }

  // Acks that many samples, then ends the stream so.
  void AckThenEnd(int count, const grpc::Status& end) {
    learner_.deliver = [count, end](grpc::ServerContext*, HookedLearner::SampleStream* stream) {
      cluster::v1::TrajectorySample sample;
      for (int i = 0; i < count && stream->Read(&sample); ++i) {
        cluster::v1::SampleAck ack;
        ack.set_sample_index(sample.sample_index());
        ack.set_outcome(cluster::v1::SampleAck::TAKEN);
        stream->Write(ack);
      }
      return end;
    };
  }

  HookedLearner learner_;
  std::unique_ptr<LearnerClient> client_;
  std::vector<int> acked_;
};

TEST_F(LearnerClientTest, SamplesAreDeliveredOnceAllAreAckedHoweverTheStreamEnds) {
  AckThenEnd(3, grpc::Status(grpc::StatusCode::UNAVAILABLE, "broken"));
  EXPECT_TRUE(Deliver(3).ok());
  EXPECT_THAT(acked_, ElementsAre(0, 1, 2));
}

TEST_F(LearnerClientTest, AStreamThatBreaksBeforeTheLastAckIsAnError) {
  AckThenEnd(2, grpc::Status(grpc::StatusCode::UNAVAILABLE, "broken"));
  EXPECT_EQ(Deliver(3).code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(acked_, ElementsAre(0, 1));
}

TEST_F(LearnerClientTest, DeliveringNothingWaitsForNobody) {
  learner_.deliver = [](grpc::ServerContext* context, HookedLearner::SampleStream*) {
    return HookedLearner::StaySilent(context);
  };
  EXPECT_TRUE(Deliver(0, absl::Seconds(1)).ok());
}

TEST_F(LearnerClientTest, ADeliveryThatIsOfNoUseAnyMoreEnds) {
  std::atomic<bool> useless = false;
  learner_.deliver = [&](grpc::ServerContext* context, HookedLearner::SampleStream*) {
    useless = true;
    return HookedLearner::StaySilent(context);
  };
  const absl::Status status = Deliver(3, absl::InfiniteDuration(), [&] { return useless.load(); });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
}

TEST_F(LearnerClientTest, APolicyMayTakeLongerThanACallAsLongAsItComes) {
  constexpr absl::Duration kTimeout = absl::Seconds(2);
  learner_.fetch = [&](grpc::ServerContext*, HookedLearner::PolicyWriter* writer) {
    HookedLearner::SendHeader(7, "policy", writer);
    for (const char byte : std::string("policy")) {
      absl::SleepFor(kTimeout / 5);
      HookedLearner::SendBytes(std::string(1, byte), writer);
    }
    return grpc::Status::OK;
  };
  const auto policy = Client(kTimeout).FetchPolicy(7);
  ASSERT_TRUE(policy.ok()) << policy.status();
  EXPECT_EQ(policy->bytes, "policy");
}

TEST_F(LearnerClientTest, APolicyThatStopsComingIsGivenUp) {
  learner_.fetch = [](grpc::ServerContext* context, HookedLearner::PolicyWriter* writer) {
    HookedLearner::SendHeader(7, "policy", writer);
    HookedLearner::SendBytes("pol", writer);
    return HookedLearner::StaySilent(context);
  };
  EXPECT_EQ(Client(absl::Milliseconds(200)).FetchPolicy(7).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST_F(LearnerClientTest, APolicyThatIsOfNoUseAnyMoreIsNotWaitedFor) {
  std::atomic<bool> useless = false;
  learner_.fetch = [&](grpc::ServerContext* context, HookedLearner::PolicyWriter*) {
    useless = true;
    return HookedLearner::StaySilent(context);
  };
  const auto policy =
      Client(absl::InfiniteDuration()).FetchPolicy(7, [&] { return useless.load(); });
  EXPECT_EQ(policy.status().code(), absl::StatusCode::kCancelled);
}

TEST_F(LearnerClientTest, ASubscriptionThatWasCancelledBeforeItsStartEnds) {
  learner_.subscribe = [](grpc::ServerContext* context, HookedLearner::PolicyWriter*) {
    return HookedLearner::StaySilent(context);
  };
  LearnerClient& client = Client();
  client.CancelStreams();
  const absl::Status status = client.Subscribe(
      -1, absl::InfiniteDuration(), [](const Policy&) {}, [] { return true; });
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace ddpo
