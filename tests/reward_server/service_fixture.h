#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/rpc/channel.h"
#include "ddpo/reward/v1/reward.grpc.pb.h"
#include "reward_server/scorer_pool.h"
#include "reward_server/service.h"
#include "tests/reward_server/fake_scorer.h"

namespace ddpo::testing {

// A reward service over TCP with the fake scorer `width` and, as `prompted`, one that needs a
// prompt.
class ServiceFixture : public ::testing::Test {
 protected:
  ~ServiceFixture() override {
    control_.Open();
    if (server_ != nullptr) {
      service_->Drain();
      pool_->Abort();
      server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(5));
    }
  }

  void Start() {
    std::vector<std::unique_ptr<Scorer>> scorers;
    scorers.push_back(std::make_unique<FakeScorer>(&control_, FakeScorer::DefaultInfo()));
    ScorerInfo prompted = FakeScorer::DefaultInfo();
    prompted.name = "prompted";
    prompted.needs_prompt = true;
    prompted.min_score = 0;
    scorers.push_back(std::make_unique<FakeScorer>(&control_, prompted));
    pool_ = std::make_unique<ScorerPool>(std::move(scorers), batching_);
    service_ = std::make_unique<RewardServiceImpl>(pool_.get(), options_);
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(service_.get());
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    address_ = absl::StrCat("127.0.0.1:", port);
    stub_ = NewStub();
  }

  // On a connection of its own.
  std::unique_ptr<reward::v1::RewardService::Stub> NewStub() {
    // gRPC 1.51 now and then takes a connection that opens for one that failed, by reading errno
    // too late; the next try opens.
    return reward::v1::RewardService::NewStub(*CreateChannel(address_, {.wait_for_ready = true}));
  }

  Batcher* batcher() { return *pool_->Find("width"); }

  // A raw image of the width, one pixel high.
  static reward::v1::ScoreItem Item(const std::string& id, int width,
                                    const std::string& prompt = "") {
    reward::v1::ScoreItem item;
    item.set_item_id(id);
    item.set_prompt(prompt);
    item.mutable_image()->mutable_raw()->set_width(static_cast<uint32_t>(width));
    item.mutable_image()->mutable_raw()->set_height(1);
    item.mutable_image()->mutable_raw()->set_rgb(std::string(3 * static_cast<size_t>(width), 'x'));
    return item;
  }

  static reward::v1::ScoreRequest Request(int items, const std::string& prompt = "") {
    reward::v1::ScoreRequest request;
    request.set_scorer("width");
    for (int i = 0; i < items; ++i) *request.add_items() = Item(absl::StrCat(i), i + 1, prompt);
    return request;
  }

  static void SetDeadline(grpc::ClientContext* context, std::chrono::milliseconds timeout) {
    context->set_deadline(std::chrono::system_clock::now() + timeout);
  }

  grpc::Status Score(const reward::v1::ScoreRequest& request, reward::v1::ScoreResponse* response) {
    grpc::ClientContext context;
    SetDeadline(&context, std::chrono::seconds(60));
    return stub_->Score(&context, request, response);
  }

  // Lets the scorer take one item and holds it there, so that later ones wait. Join the thread
  // after Open.
  std::thread Block() {
    control_.Close();
    std::thread caller([this] {
      reward::v1::ScoreResponse response;
      EXPECT_TRUE(Score(Request(1, "block"), &response).ok());
    });
    control_.AwaitCalls(1);
    return caller;
  }

  // Waits until exactly so many items wait in the queue of `width`.
  void AwaitWaiting(int64_t items) {
    while (batcher()->stats().waiting_items != items) std::this_thread::yield();
  }

  FakeScorerControl control_;
  BatcherOptions batching_;
  RewardServiceOptions options_;
  std::unique_ptr<ScorerPool> pool_;
  std::unique_ptr<RewardServiceImpl> service_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  std::unique_ptr<reward::v1::RewardService::Stub> stub_;
};

}  // namespace ddpo::testing
