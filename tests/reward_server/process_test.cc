// ddpo-reward-server as a process.

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/files.h"
#include "common/base/subprocess.h"
#include "common/rpc/channel.h"
#include "common/tensors/jpeg.h"
#include "ddpo/reward/v1/jobs.grpc.pb.h"
#include "ddpo/reward/v1/reward.grpc.pb.h"
#include "tests/testing/grpc_probe.h"
#include "tests/testing/paths.h"

namespace ddpo {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class RewardServerProcessTest : public ::testing::Test {
 protected:
  RewardServerProcessTest()
      : directory_(absl::StrCat(::testing::TempDir(), "/reward_process_", getpid(), "_",
                                ::testing::UnitTest::GetInstance()->current_test_info()->name())) {
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
  }
  ~RewardServerProcessTest() override {
    process_.reset();
    std::filesystem::remove_all(directory_);
  }

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }

  void Launch(std::vector<std::string> arguments) {
    Subprocess::Options options;
    options.argv = {testing::ProgramPath("ddpo-reward-server")};
    options.argv.insert(options.argv.end(), arguments.begin(), arguments.end());
    options.log_file = Path("log");
    auto process = Subprocess::Start(options);
    ASSERT_TRUE(process.ok()) << process.status();
    process_ = *std::move(process);
  }

  // Launches a server on a free port and connects.
  void Start(std::vector<std::string> arguments = {}) {
    std::filesystem::remove(Path("address"));
    arguments.insert(arguments.end(), {"--listen", "127.0.0.1:0", "--scorers",
                                       "jpeg_compressibility,jpeg_incompressibility",
                                       "--address-file", Path("address")});
    Launch(std::move(arguments));
    while (!std::filesystem::exists(Path("address"))) {
      ASSERT_FALSE(process_->Poll().has_value()) << *ReadFile(Path("log"));
      std::this_thread::yield();
    }
    const std::vector<std::string> lines = absl::StrSplit(*ReadFile(Path("address")), '\n');
    address_ = lines[0];
    metrics_address_ = lines[1];
    channel_ = *CreateChannel(address_, {.wait_for_ready = true});
    stub_ = reward::v1::RewardService::NewStub(channel_);
  }

  // Waits for the end; its exit code and what it said.
  std::pair<int, std::string> Await() {
    const auto status = process_->Wait(absl::Seconds(60));
    if (!status.has_value() || status->signal != 0) return {-1, *ReadFile(Path("log"))};
    return {status->code, *ReadFile(Path("log"))};
  }

  const std::string directory_;
  std::unique_ptr<Subprocess> process_;
  std::string address_;
  std::string metrics_address_;  // empty without --metrics-listen
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<reward::v1::RewardService::Stub> stub_;
};

Image Noise(int width, int height) {
  Image image{width, height, {}};
  for (int i = 0; i < width * height * 3; ++i) {
    image.rgb.push_back(static_cast<uint8_t>(i * 2654435761u >> 13));
  }
  return image;
}

// GET over a plain socket.
std::string HttpGet(const std::string& address, const std::string& path) {
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
  const int connection = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in target{};
  target.sin_family = AF_INET;
  target.sin_port = htons(static_cast<uint16_t>(port));
  target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string answer;
  if (connect(connection, reinterpret_cast<sockaddr*>(&target), sizeof(target)) == 0) {
    const std::string request = absl::StrCat("GET ", path, " HTTP/1.0\r\n\r\n");
    EXPECT_EQ(write(connection, request.data(), request.size()),
              static_cast<ssize_t>(request.size()));
    char buffer[4096];
    for (ssize_t count = 0; (count = read(connection, buffer, sizeof(buffer))) > 0;) {
      answer.append(buffer, static_cast<size_t>(count));
    }
  }
  close(connection);
  return answer;
}

TEST_F(RewardServerProcessTest, ServesAndEndsCleanlyOnSigterm) {
  Start({"--metrics-listen", "127.0.0.1:0"});
  EXPECT_EQ(testing::CheckHealth(channel_, ""), "SERVING");
  EXPECT_EQ(testing::CheckHealth(channel_, "ddpo.reward.v1.RewardService"), "SERVING");
  EXPECT_THAT(testing::ListServices(channel_),
              AllOf(HasSubstr("ddpo.reward.v1.RewardService"), HasSubstr("grpc.health.v1.Health")));

  const Image image = Noise(64, 48);
  reward::v1::ScoreRequest request;
  request.set_scorer("jpeg_compressibility");
  reward::v1::RawImage* raw = request.add_items()->mutable_image()->mutable_raw();
  raw->set_width(64);
  raw->set_height(48);
  raw->set_rgb(image.rgb.data(), image.rgb.size());
  const std::vector<uint8_t> jpeg = *EncodeJpeg(image, 95);
  request.add_items()->mutable_image()->set_encoded(jpeg.data(), jpeg.size());
  request.add_items()->mutable_image()->set_encoded("no image");
  grpc::ClientContext context;
  reward::v1::ScoreResponse response;
  const grpc::Status status = stub_->Score(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.scorer_digest().size(), 64u);
  EXPECT_EQ(response.results(0).score().value(), -static_cast<double>(jpeg.size()) / 1000);
  EXPECT_TRUE(response.results(1).has_score());
  EXPECT_EQ(response.results(2).error().reason(), "IMAGE_DECODE_FAILED");

  const std::string metrics = HttpGet(metrics_address_, "/metrics");
  for (const char* line :
       {"ddpo_reward_items_total{outcome=\"scored\",scorer=\"jpeg_compressibility\"} 2",
        "ddpo_reward_items_total{outcome=\"failed\",scorer=\"jpeg_compressibility\"} 1",
        "ddpo_reward_requests_total{code=\"OK\",scorer=\"jpeg_compressibility\"} 1",
        "ddpo_reward_queue_depth{scorer=\"jpeg_compressibility\"} 0"}) {
    EXPECT_THAT(metrics, HasSubstr(line));
  }

  process_->Kill(SIGTERM);
  const auto [code, output] = Await();
  EXPECT_EQ(code, 0) << output;
  EXPECT_THAT(output, AllOf(HasSubstr("draining"), HasSubstr("stopped")));
}

TEST_F(RewardServerProcessTest, EndsAnIdleStreamWhenItDrains) {
  Start();
  grpc::ClientContext context;
  auto stream = stub_->StreamScore(&context);
  reward::v1::StreamScoreRequest request;
  request.set_scorer("jpeg_compressibility");
  request.mutable_item()->mutable_image()->mutable_raw();
  reward::v1::StreamScoreResponse response;
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&response));
  process_->Kill(SIGTERM);
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Await().first, 0);
}

TEST_F(RewardServerProcessTest, AJobSurvivesBeingKilledAndScoresEachItemOnce) {
  constexpr int kItems = 240;
  std::vector<double> expected;
  reward::v1::SubmitJobRequest message;
  message.set_request_id("r1");
  message.set_scorer("jpeg_incompressibility");
  for (int i = 0; i < kItems; ++i) {
    const Image image = Noise(256, 200 + i % 50);
    expected.push_back(static_cast<double>(EncodeJpeg(image, 95)->size()) / 1000);
    reward::v1::ScoreItem* item = message.add_items();
    item->set_item_id(absl::StrCat(i));
    item->mutable_image()->mutable_raw()->set_width(256);
    item->mutable_image()->mutable_raw()->set_height(static_cast<uint32_t>(image.height));
    item->mutable_image()->mutable_raw()->set_rgb(image.rgb.data(), image.rgb.size());
  }
  const std::vector<std::string> arguments = {"--jobs-database", Path("jobs.db")};
  Start(arguments);
  auto jobs = reward::v1::RewardJobs::NewStub(channel_);
  reward::v1::Job job;
  {
    grpc::ClientContext context;
    auto writer = jobs->SubmitJob(&context, &job);
    ASSERT_TRUE(writer->Write(message));
    writer->WritesDone();
    const grpc::Status status = writer->Finish();
    ASSERT_TRUE(status.ok()) << status.error_message();
  }
  // Killed each time that some more items have a result.
  int64_t done = 0;
  int kills = 0;
  while (done < kItems) {
    grpc::ClientContext context;
    reward::v1::GetJobRequest request;
    request.set_name(job.name());
    ASSERT_TRUE(jobs->GetJob(&context, request, &job).ok());
    const int64_t now = job.items_succeeded() + job.items_failed();
    ASSERT_GE(now, done);
    if (now == done || now == kItems) {
      done = now;
      std::this_thread::yield();
      continue;
    }
    done = now;
    process_->Kill(SIGKILL);
    process_->Wait();
    ++kills;
    Start(arguments);
    jobs = reward::v1::RewardJobs::NewStub(channel_);
  }
  EXPECT_GT(kills, 0);
  EXPECT_EQ(job.state(), reward::v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(job.items_succeeded(), kItems);
  grpc::ClientContext context;
  reward::v1::ListJobResultsRequest request;
  request.set_name(job.name());
  request.set_page_size(1000);
  reward::v1::ListJobResultsResponse results;
  ASSERT_TRUE(jobs->ListJobResults(&context, request, &results).ok());
  ASSERT_EQ(results.results_size(), kItems);
  for (int i = 0; i < kItems; ++i) {
    EXPECT_EQ(results.results(i).item_id(), absl::StrCat(i));
    EXPECT_EQ(results.results(i).score().value(), expected[static_cast<size_t>(i)]);
  }
}

TEST_F(RewardServerProcessTest, RefusesAMessageOverTheLimit) {
  Start({"--set", "limits.max_message_bytes=4096"});
  reward::v1::ScoreRequest request;
  request.set_scorer("jpeg_compressibility");
  request.add_items()->mutable_image()->set_encoded(std::string(5000, 'x'));
  grpc::ClientContext context;
  reward::v1::ScoreResponse response;
  EXPECT_EQ(stub_->Score(&context, request, &response).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(RewardServerProcessTest, AMessageOverTheLimitIsNotTheEndOfAJob) {
  Start({"--set", "limits.max_message_bytes=4096", "--jobs-database", Path("jobs.db")});
  auto jobs = reward::v1::RewardJobs::NewStub(channel_);
  reward::v1::SubmitJobRequest message;
  message.set_request_id("r1");
  message.set_scorer("jpeg_compressibility");
  message.add_items()->mutable_image()->set_encoded("x");
  grpc::ClientContext context;
  reward::v1::Job job;
  auto writer = jobs->SubmitJob(&context, &job);
  ASSERT_TRUE(writer->Write(message));
  message.mutable_items(0)->mutable_image()->set_encoded(std::string(5000, 'x'));
  writer->Write(message);
  writer->WritesDone();
  EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  grpc::ClientContext list_context;
  reward::v1::ListJobsResponse list;
  ASSERT_TRUE(jobs->ListJobs(&list_context, {}, &list).ok());
  EXPECT_EQ(list.jobs_size(), 0);
}

TEST_F(RewardServerProcessTest, ReadsItsConfigurationFromAFile) {
  std::filesystem::create_directories(directory_);
  ASSERT_TRUE(
      WriteFileAtomically(Path("server.yaml"), absl::StrCat("listen: 127.0.0.1:0\n"
                                                            "scorers: [jpeg_compressibility]\n"
                                                            "address_file: ",
                                                            Path("address"),
                                                            "\n"
                                                            "limits: {max_image_pixels: 100}\n"))
          .ok());
  Launch({"--config", Path("server.yaml")});
  while (!std::filesystem::exists(Path("address"))) {
    ASSERT_FALSE(process_->Poll().has_value()) << *ReadFile(Path("log"));
    std::this_thread::yield();
  }
  stub_ = reward::v1::RewardService::NewStub(
      *CreateChannel(std::string(absl::StripAsciiWhitespace(*ReadFile(Path("address"))))));
  reward::v1::ScoreRequest request;
  request.set_scorer("jpeg_compressibility");
  reward::v1::RawImage* raw = request.add_items()->mutable_image()->mutable_raw();
  raw->set_width(101);
  raw->set_height(1);
  raw->set_rgb(std::string(303, 'x'));
  grpc::ClientContext context;
  reward::v1::ScoreResponse response;
  ASSERT_TRUE(stub_->Score(&context, request, &response).ok());
  EXPECT_EQ(response.results(0).error().reason(), "IMAGE_TOO_LARGE");
}

TEST_F(RewardServerProcessTest, RefusesToStartWithAMessageThatSaysWhy) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"--scorers", "beauty"}, "unknown scorer 'beauty'; this program knows jpeg_compressibility"},
      {{}, "no scorer is named"},
      {{"--scorers", "jpeg_compressibility", "--listen", "0.0.0.0:0"}, "0.0.0.0:0 is not loopback"},
      {{"--scorers", "jpeg_compressibility", "--set", "limits.max_batch_siz=1"},
       "limits.max_batch_siz: unknown key (did you mean max_batch_size?)"},
      {{"--scorers", "jpeg_compressibility", "--set", "limits.max_batch_size=0"},
       "limits.max_batch_size: 0 is out of range"},
      {{"--config", "/nowhere/server.yaml"}, "/nowhere/server.yaml"},
  };
  for (const auto& [arguments, message] : cases) {
    std::filesystem::remove(Path("log"));
    Launch(arguments);
    const auto [code, output] = Await();
    EXPECT_EQ(code, 2);
    EXPECT_THAT(output, HasSubstr(message));
  }
}

}  // namespace
}  // namespace ddpo
