#include "tests/testing/fault_proxy.h"

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <memory>
#include <string>

#include "ddpo/cluster/v1/cluster.grpc.pb.h"

namespace ddpo::testing {
namespace {

// Counts what reaches it.
class CountingServer : public cluster::v1::Coordinator::Service,
                       public cluster::v1::TrajectoryIngest::Service {
 public:
  CountingServer() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(static_cast<cluster::v1::Coordinator::Service*>(this));
    builder.RegisterService(static_cast<cluster::v1::TrajectoryIngest::Service*>(this));
    server_ = builder.BuildAndStart();
    address_ = "127.0.0.1:" + std::to_string(port);
  }
  ~CountingServer() override { Stop(); }
  void Stop() { server_->Shutdown(); }

  grpc::Status Register(grpc::ServerContext*, const cluster::v1::RegisterRequest* request,
                        cluster::v1::RegisterResponse* response) override {
    ++calls;
    response->set_run_id("run of " + request->actor_id());
    return grpc::Status::OK;
  }
  grpc::Status Deliver(grpc::ServerContext*,
                       grpc::ServerReaderWriter<cluster::v1::SampleAck,
                                                cluster::v1::TrajectorySample>* stream) override {
    cluster::v1::TrajectorySample sample;
    while (stream->Read(&sample)) {
      ++calls;
      cluster::v1::SampleAck ack;
      ack.set_sample_index(sample.sample_index());
      stream->Write(ack);
    }
    return grpc::Status::OK;
  }

  const std::string& address() const { return address_; }
  std::atomic<int> calls{0};

 private:
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

class FaultProxyTest : public ::testing::Test {
 protected:
  std::shared_ptr<grpc::Channel> Through(const FaultPlan& plan) {
    proxy_ = std::make_unique<FaultProxy>(server_.address(), plan);
    return grpc::CreateChannel(proxy_->address(), grpc::InsecureChannelCredentials());
  }
  grpc::Status Register(const std::shared_ptr<grpc::Channel>& channel,
                        cluster::v1::RegisterResponse* response) {
    grpc::ClientContext context;
    cluster::v1::RegisterRequest request;
    request.set_actor_id("actor-0");
    return cluster::v1::Coordinator::NewStub(channel)->Register(&context, request, response);
  }
  // Sends two samples at once; the acks that come.
  int Deliver(const std::shared_ptr<grpc::Channel>& channel, grpc::Status* status) {
    grpc::ClientContext context;
    const auto stub = cluster::v1::TrajectoryIngest::NewStub(channel);
    const auto stream = stub->Deliver(&context);
    for (int i = 0; i < 2; ++i) {
      cluster::v1::TrajectorySample sample;
      sample.set_sample_index(i);
      stream->Write(sample);
    }
    stream->WritesDone();
    cluster::v1::SampleAck ack;
    int acks = 0;
    while (stream->Read(&ack)) EXPECT_EQ(ack.sample_index(), acks++);
    *status = stream->Finish();
    return acks;
  }

  CountingServer server_;
  std::unique_ptr<FaultProxy> proxy_;
};

TEST_F(FaultProxyTest, PassesCallsAndStreamsOn) {
  const auto channel = Through({.delayed = 0.5, .delay = absl::Milliseconds(1)});
  for (int i = 0; i < 4; ++i) {
    cluster::v1::RegisterResponse response;
    EXPECT_TRUE(Register(channel, &response).ok());
    EXPECT_EQ(response.run_id(), "run of actor-0");
    grpc::Status status;
    EXPECT_EQ(Deliver(channel, &status), 2);
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
  EXPECT_EQ(server_.calls, 12);
}

TEST_F(FaultProxyTest, ACallThatFailsBeforeNeverReachesTheServer) {
  const auto channel = Through({.fails_before = 1});
  cluster::v1::RegisterResponse response;
  EXPECT_EQ(Register(channel, &response).error_code(), grpc::StatusCode::UNAVAILABLE);
  grpc::Status status;
  EXPECT_EQ(Deliver(channel, &status), 0);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(server_.calls, 0);
}

TEST_F(FaultProxyTest, ACallWhoseResponseIsLostHasReachedTheServer) {
  const auto channel = Through({.response_lost = 1});
  cluster::v1::RegisterResponse response;
  EXPECT_EQ(Register(channel, &response).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(server_.calls, 1);
  grpc::Status status;
  EXPECT_EQ(Deliver(channel, &status), 0);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_GE(server_.calls, 2);
  EXPECT_EQ(proxy_->faults(), (std::map<Fault, int64_t>{{Fault::kResponseLost, 2}}));
}

TEST_F(FaultProxyTest, AResponseThatNeverCameIsNotLost) {
  const auto channel = Through({.response_lost = 1});
  server_.Stop();
  cluster::v1::RegisterResponse response;
  EXPECT_EQ(Register(channel, &response).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(proxy_->faults(), (std::map<Fault, int64_t>()));
}

TEST_F(FaultProxyTest, TheSameSeedStrikesTheSameCalls) {
  const FaultPlan plan{.seed = 3, .fails_before = 0.2, .response_lost = 0.2, .delayed = 0.2};
  std::map<Fault, int> counts;
  int changed = 0;
  for (int call = 0; call < 1000; ++call) {
    EXPECT_EQ(DecideFault(plan, "/a", call), DecideFault(plan, "/a", call));
    changed += DecideFault(plan, "/a", call) != DecideFault(plan, "/b", call) ? 1 : 0;
    ++counts[DecideFault(plan, "/a", call)];
  }
  EXPECT_GT(changed, 0);
  // 1000 draws: within five standard deviations of 13 of what the plan says.
  for (const Fault fault : {Fault::kFailsBefore, Fault::kResponseLost, Fault::kDelayed}) {
    EXPECT_NEAR(counts[fault], 200, 65);
  }
}

}  // namespace
}  // namespace ddpo::testing
