// A whole reward server in this process: how it drains, and whom it lets in.
#include "reward_server/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/base/files.h"
#include "common/rpc/channel.h"
#include "ddpo/reward/v1/jobs.grpc.pb.h"
#include "ddpo/reward/v1/reward.grpc.pb.h"
#include "tests/reward_server/fake_scorer.h"
#include "tests/testing/grpc_probe.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_certificates.h"

namespace ddpo {
namespace {

using ::testing::AnyOf;
using ::testing::IsEmpty;

class RewardServerTest : public ::testing::Test {
 protected:
  RewardServerTest() {
    config_.set_listen("127.0.0.1:0");
    config_.add_scorers("width");
    config_.set_drain_seconds(60);
    auto* limits = config_.mutable_limits();
    limits->set_max_batch_size(4);
    limits->set_max_queue_items(100);
    limits->set_max_queue_bytes(1 << 20);
    limits->set_max_image_pixels(1 << 16);
    limits->set_max_message_bytes(1 << 20);
    limits->set_scoring_threads(1);
    limits->set_decoding_threads(1);
    config_.mutable_jobs()->set_database(dir_ / "jobs.db");
    config_.mutable_jobs()->set_workers(1);
    config_.mutable_jobs()->set_max_age_hours(1);
    config_.mutable_jobs()->set_max_jobs(10);
    config_.mutable_jobs()->set_max_bytes(1 << 24);
  }
  ~RewardServerTest() override { control_.Open(); }

  void Start() {
    ScorerRegistry registry;
    ASSERT_TRUE(registry
                    .Register("width",
                              [this]() -> absl::StatusOr<std::unique_ptr<Scorer>> {
                                return std::make_unique<testing::FakeScorer>(
                                    &control_, testing::FakeScorer::DefaultInfo());
                              })
                    .ok());
    auto server = RewardServer::Start(config_, registry);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  std::shared_ptr<grpc::Channel> Connect(const config::v1::TlsConfig& tls = {},
                                         const std::string& token_file = "") {
    return *CreateChannel(server_->address(), {.tls = tls, .token_file = token_file});
  }

  static reward::v1::ScoreItem OnePixel() {
    reward::v1::ScoreItem item;
    reward::v1::RawImage* raw = item.mutable_image()->mutable_raw();
    raw->set_width(1);
    raw->set_height(1);
    raw->set_rgb("rgb");
    return item;
  }

  static grpc::Status Score(const std::shared_ptr<grpc::Channel>& channel) {
    reward::v1::ScoreRequest request;
    request.set_scorer("width");
    *request.add_items() = OnePixel();
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    reward::v1::ScoreResponse response;
    return reward::v1::RewardService::NewStub(channel)->Score(&context, request, &response);
  }

  // The outcome of each kind of call but Score.
  static std::vector<grpc::StatusCode> OtherCalls(const std::shared_ptr<grpc::Channel>& channel) {
    std::vector<grpc::StatusCode> codes;
    auto service = reward::v1::RewardService::NewStub(channel);
    auto jobs = reward::v1::RewardJobs::NewStub(channel);
    const auto call = [&](const auto& invoke) {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
      codes.push_back(invoke(&context).error_code());
    };
    call([&](auto* context) {
      reward::v1::ListScorersResponse response;
      return service->ListScorers(context, {}, &response);
    });
    call([&](auto* context) { return service->StreamScore(context)->Finish(); });
    call([&](auto* context) {
      reward::v1::Job job;
      return jobs->SubmitJob(context, &job)->Finish();
    });
    call([&](auto* context) {
      reward::v1::ListJobsResponse response;
      return jobs->ListJobs(context, {}, &response);
    });
    call([&](auto* context) {
      reward::v1::ListJobResultsResponse response;
      return jobs->ListJobResults(context, {}, &response);
    });
    call([&](auto* context) {
      reward::v1::Job job;
      return jobs->WaitJob(context, {}, &job);
    });
    return codes;
  }

  testing::TempDir dir_;
  testing::FakeScorerControl control_;
  config::v1::RewardServerProgram config_;
  std::unique_ptr<RewardServer> server_;
};

TEST_F(RewardServerTest, DrainSaysNotServingFirstAndAnswersWhatWasAccepted) {
  Start();
  const auto channel = Connect();
  ASSERT_TRUE(Score(channel).ok());
  EXPECT_EQ(testing::CheckHealth(channel, "ddpo.reward.v1.RewardService"), "SERVING");
  EXPECT_EQ(testing::CheckHealth(channel, "ddpo.reward.v1.RewardJobs"), "SERVING");
  control_.Close();
  std::thread accepted([&] { EXPECT_TRUE(Score(channel).ok()); });
  control_.AwaitCalls(2);
  std::thread drain([&] { server_->Drain(absl::Minutes(1)); });
  while (testing::CheckHealth(channel, "") == "SERVING") std::this_thread::yield();
  EXPECT_EQ(testing::CheckHealth(channel, "ddpo.reward.v1.RewardService"), "NOT_SERVING");
  EXPECT_EQ(testing::CheckHealth(channel, "ddpo.reward.v1.RewardJobs"), "NOT_SERVING");
  // One that comes now is refused, or was still accepted and is answered; gRPC itself cancels one
  // that comes while it closes.
  std::thread late([&] {
    EXPECT_THAT(
        Score(channel).error_code(),
        AnyOf(grpc::StatusCode::UNAVAILABLE, grpc::StatusCode::CANCELLED, grpc::StatusCode::OK));
  });
  control_.Open();
  late.join();
  accepted.join();
  drain.join();
}

TEST_F(RewardServerTest, AJobOutlivesADrainAndWhoWaitsForItIsTold) {
  Start();
  control_.Close();
  auto jobs = reward::v1::RewardJobs::NewStub(Connect());
  reward::v1::SubmitJobRequest request;
  request.set_request_id("r1");
  request.set_scorer("width");
  *request.add_items() = OnePixel();
  reward::v1::Job job;
  grpc::ClientContext submit_context;
  auto writer = jobs->SubmitJob(&submit_context, &job);
  writer->WriteLast(request, {});
  ASSERT_TRUE(writer->Finish().ok());
  control_.AwaitCalls(1);
  reward::v1::WaitJobRequest wait;
  wait.set_name(job.name());
  std::thread waiter([&] {
    grpc::ClientContext context;
    reward::v1::Job answer;
    EXPECT_EQ(jobs->WaitJob(&context, wait, &answer).error_code(), grpc::StatusCode::UNAVAILABLE);
  });
  std::thread drain([&] { server_->Drain(absl::Minutes(1)); });
  waiter.join();
  control_.Open();
  drain.join();
  server_.reset();
  Start();
  grpc::ClientContext context;
  jobs = reward::v1::RewardJobs::NewStub(Connect());
  ASSERT_TRUE(jobs->WaitJob(&context, wait, &job).ok());
  EXPECT_EQ(job.state(), reward::v1::JOB_STATE_SUCCEEDED);
}

TEST_F(RewardServerTest, AWrongTokenOpensNothing) {
  ASSERT_TRUE(WriteFileAtomically(dir_ / "tokens", "0123456789abcdef trainer\n").ok());
  ASSERT_TRUE(WriteFileAtomically(dir_ / "right", "0123456789abcdef\n").ok());
  ASSERT_TRUE(WriteFileAtomically(dir_ / "wrong", "0123456789abcdeg\n").ok());
  config_.mutable_security()->set_tokens_file(dir_ / "tokens");
  Start();
  EXPECT_TRUE(Score(Connect({}, dir_ / "right")).ok());
  for (const auto& channel : {Connect({}, dir_ / "wrong"), Connect()}) {
    EXPECT_EQ(Score(channel).error_code(), grpc::StatusCode::UNAUTHENTICATED);
    EXPECT_THAT(OtherCalls(channel), ::testing::Each(grpc::StatusCode::UNAUTHENTICATED));
  }
  EXPECT_THAT(control_.batches(), ::testing::SizeIs(1));
}

TEST_F(RewardServerTest, WithoutAClientsCertificateNothingIsScored) {
  testing::TestAuthority authority(dir_.path(), "ca");
  testing::TestAuthority stranger(dir_.path(), "stranger_ca");
  authority.Issue("server");
  authority.Issue("client");
  stranger.Issue("stranger");
  auto* tls = config_.mutable_security()->mutable_tls();
  tls->set_certificate(dir_ / "server.crt");
  tls->set_private_key(dir_ / "server.key");
  tls->set_client_ca(authority.file());
  Start();
  config::v1::TlsConfig client;
  client.set_server_ca(authority.file());
  EXPECT_EQ(Score(Connect(client)).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Score(Connect()).error_code(), grpc::StatusCode::UNAVAILABLE);
  client.set_certificate(dir_ / "stranger.crt");
  client.set_private_key(dir_ / "stranger.key");
  EXPECT_EQ(Score(Connect(client)).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(control_.batches(), IsEmpty());
  client.set_certificate(dir_ / "client.crt");
  client.set_private_key(dir_ / "client.key");
  EXPECT_TRUE(Score(Connect(client)).ok());
}

}  // namespace
}  // namespace ddpo
