// Background jobs, over real connections.

#include "reward_server/jobs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/fake_clock.h"
#include "common/rpc/server.h"
#include "ddpo/reward/v1/jobs.grpc.pb.h"
#include "reward_server/jobs_service.h"
#include "reward_server/jobs_store.h"
#include "tests/reward_server/fake_scorer.h"

namespace ddpo {
namespace {

using ::ddpo::testing::FakeScorer;
using ::ddpo::testing::FakeScorerControl;
using ::testing::HasSubstr;

using reward::v1::Job;
using reward::v1::SubmitJobRequest;

class JobsTest : public ::testing::Test {
 protected:
  JobsTest() : directory_(::testing::TempDir() + "/jobs_test_" + std::to_string(getpid())) {
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
    batching_.max_batch_delay = absl::ZeroDuration();
  }
  ~JobsTest() override {
    control_.Open();
    Stop();
    std::filesystem::remove_all(directory_);
  }

  // A server on the store's file, with the scorer `width` unless told otherwise.
  void Start(const std::string& digest = "d1", const std::string& scorer = "width") {
    store_ = *JobStore::Open(directory_ + "/jobs.db", {});
    ScorerInfo info = FakeScorer::DefaultInfo();
    info.name = scorer;
    info.digest = digest;
    std::vector<std::unique_ptr<Scorer>> scorers;
    scorers.push_back(std::make_unique<FakeScorer>(&control_, info));
    pool_ = std::make_unique<ScorerPool>(std::move(scorers), batching_);
    runner_ = std::make_unique<JobRunner>(store_.get(), pool_.get(), runner_options_);
    service_ =
        std::make_unique<JobsService>(store_.get(), runner_.get(), pool_.get(), service_options_);
    ASSERT_TRUE(runner_->Start().ok());
    server_ = *RpcServer::Start({}, {service_.get()});
    stub_ = reward::v1::RewardJobs::NewStub(
        *CreateChannel(server_->address(), {.wait_for_ready = true}));
  }

  void Stop() {
    if (server_ == nullptr) return;
    runner_->Stop();
    server_.reset();
    service_.reset();
    runner_.reset();
    pool_.reset();
    store_.reset();
  }

  // Submits a job of which the scorer holds the first batch, and stops the server: what waits
  // behind that batch is dropped.
  Job StopAmidJob(int items) {
    control_.Close();
    Start();
    const Job job = SubmitItems("r1", items);
    control_.AwaitCalls(1);
    std::thread stop([this] { runner_->Stop(); });
    while (pool_->batchers()[0]->stats().waiting_items > 0) std::this_thread::yield();
    control_.Open();
    stop.join();
    Stop();
    return job;
  }

  static SubmitJobRequest Message(const std::string& request_id, int first, int last) {
    SubmitJobRequest message;
    message.set_request_id(request_id);
    message.set_scorer("width");
    for (int i = first; i < last; ++i) {
      reward::v1::ScoreItem* item = message.add_items();
      item->set_item_id(absl::StrCat("item ", i));
      (*item->mutable_metadata())["a"] = "1";
      (*item->mutable_metadata())["b"] = "2";
      reward::v1::RawImage* raw = item->mutable_image()->mutable_raw();
      raw->set_width(static_cast<uint32_t>(i + 1));
      raw->set_height(1);
      raw->set_rgb(std::string(3 * static_cast<size_t>(i + 1), 'x'));
    }
    return message;
  }

  grpc::Status Submit(const std::vector<SubmitJobRequest>& messages, Job* job) {
    grpc::ClientContext context;
    auto writer = stub_->SubmitJob(&context, job);
    for (const SubmitJobRequest& message : messages) writer->Write(message);
    writer->WritesDone();
    return writer->Finish();
  }

  Job SubmitItems(const std::string& request_id, int items) {
    Job job;
    const grpc::Status status = Submit({Message(request_id, 0, items)}, &job);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return job;
  }

  Job Wait(const std::string& name, int seconds = 60) {
    grpc::ClientContext context;
    reward::v1::WaitJobRequest request;
    request.set_name(name);
    request.mutable_timeout()->set_seconds(seconds);
    Job job;
    const grpc::Status status = stub_->WaitJob(&context, request, &job);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return job;
  }

  // Every result is there once, in order, and is the image's width.
  void ExpectAllResults(const std::string& name, int items) {
    int index = 0;
    std::string token;
    do {
      grpc::ClientContext context;
      reward::v1::ListJobResultsRequest request;
      request.set_name(name);
      request.set_page_size(7);
      request.set_page_token(token);
      reward::v1::ListJobResultsResponse response;
      ASSERT_TRUE(stub_->ListJobResults(&context, request, &response).ok());
      for (const auto& result : response.results()) {
        EXPECT_EQ(result.item_id(), absl::StrCat("item ", index));
        EXPECT_EQ(result.score().value(), ++index);
      }
      token = response.next_page_token();
    } while (!token.empty());
    EXPECT_EQ(index, items);
  }

  const std::string directory_;
  // Outlives the runner, whose threads may ask it until they are joined.
  FakeClock clock_{absl::Now()};
  FakeScorerControl control_;
  BatcherOptions batching_;
  JobRunnerOptions runner_options_;
  JobsServiceOptions service_options_;
  std::unique_ptr<JobStore> store_;
  std::unique_ptr<ScorerPool> pool_;
  std::unique_ptr<JobRunner> runner_;
  std::unique_ptr<JobsService> service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<reward::v1::RewardJobs::Stub> stub_;
};

TEST_F(JobsTest, ScoresAllItemsOfAJobThatCameInPieces) {
  runner_options_.items_at_a_time = 8;
  Start();
  Job job;
  SubmitJobRequest rest = Message("", 20, 50);
  rest.clear_scorer();
  ASSERT_TRUE(Submit({Message("r1", 0, 0), Message("r1", 0, 20), rest}, &job).ok());
  EXPECT_EQ(job.items_total(), 50);
  const Job ended = Wait(job.name());
  EXPECT_EQ(ended.state(), reward::v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(ended.items_succeeded(), 50);
  EXPECT_EQ(ended.items_failed(), 0);
  EXPECT_TRUE(ended.has_end_time());
  ExpectAllResults(job.name(), 50);
}

TEST_F(JobsTest, AFailedItemHasItsErrorAmongTheResults) {
  Start();
  SubmitJobRequest message = Message("r1", 0, 3);
  message.mutable_items(1)->clear_image();
  Job job;
  ASSERT_TRUE(Submit({message}, &job).ok());
  job = Wait(job.name());
  EXPECT_EQ(job.state(), reward::v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(job.items_failed(), 1);
  EXPECT_EQ(store_->ListResults(job.name(), 0, "")->results(1).error().reason(), "IMAGE_MISSING");
}

TEST_F(JobsTest, AJobGoesOnAfterARestartAndKeepsWhatWasScored) {
  const Job job = StopAmidJob(30);
  Start();
  const Job ended = Wait(job.name());
  EXPECT_EQ(ended.state(), reward::v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(ended.items_succeeded(), 30);
  ExpectAllResults(job.name(), 30);
}

TEST_F(JobsTest, RepeatingARequestReturnsItsJob) {
  Start();
  const Job first = SubmitItems("r1", 5);
  Wait(first.name());
  const Job again = SubmitItems("r1", 5);
  EXPECT_EQ(again.name(), first.name());
  EXPECT_EQ(again.state(), reward::v1::JOB_STATE_SUCCEEDED);
  Job job;
  const grpc::Status other = Submit({Message("r1", 0, 6)}, &job);
  EXPECT_EQ(other.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_THAT(other.error_message(), HasSubstr(first.name()));
}

TEST_F(JobsTest, TheContentDoesNotDependOnHowItWasCutIntoMessages) {
  Start();
  const Job first = SubmitItems("r1", 5);
  Job again;
  ASSERT_TRUE(Submit({Message("r1", 0, 2), Message("r1", 2, 5)}, &again).ok());
  EXPECT_EQ(again.name(), first.name());
}

TEST_F(JobsTest, CancellationEndsARunningJob) {
  Start();
  control_.Close();
  const Job job = SubmitItems("r1", 100);
  control_.AwaitCalls(1);
  grpc::ClientContext context;
  reward::v1::CancelJobRequest request;
  request.set_name(job.name());
  Job cancelled;
  ASSERT_TRUE(stub_->CancelJob(&context, request, &cancelled).ok());
  EXPECT_EQ(cancelled.state(), reward::v1::JOB_STATE_CANCELLED);
  control_.Open();
  EXPECT_EQ(Wait(job.name()).state(), reward::v1::JOB_STATE_CANCELLED);
  // The next job is not held up by it.
  EXPECT_EQ(Wait(SubmitItems("r2", 3).name()).state(), reward::v1::JOB_STATE_SUCCEEDED);
}

TEST_F(JobsTest, WaitReturnsARunningJobAtItsTimeout) {
  Start();
  control_.Close();
  const Job job = SubmitItems("r1", 3);
  control_.AwaitCalls(1);
  EXPECT_EQ(Wait(job.name(), 0).state(), reward::v1::JOB_STATE_RUNNING);
}

TEST_F(JobsTest, WhoWaitsForAJobThatIsDeletedIsTold) {
  Start();
  control_.Close();
  const Job job = SubmitItems("r1", 3);
  std::thread waiter([&] {
    grpc::ClientContext context;
    reward::v1::WaitJobRequest request;
    request.set_name(job.name());
    Job answer;
    EXPECT_EQ(stub_->WaitJob(&context, request, &answer).error_code(), grpc::StatusCode::NOT_FOUND);
  });
  grpc::ClientContext context;
  reward::v1::DeleteJobRequest request;
  request.set_name(job.name());
  google::protobuf::Empty empty;
  EXPECT_TRUE(stub_->DeleteJob(&context, request, &empty).ok());
  waiter.join();
  control_.Open();
}

TEST_F(JobsTest, RefusesWhatIsNoJob) {
  service_options_.max_items = 10;
  Start();
  Job job;
  const auto code = [&](std::vector<SubmitJobRequest> messages) {
    return Submit(messages, &job).error_code();
  };
  EXPECT_EQ(code({}), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(code({Message("", 0, 1)}), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(code({Message("r1", 0, 0)}), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(code({Message("r1", 0, 1), Message("r2", 1, 2)}), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(code({Message("r1", 0, 11)}), grpc::StatusCode::INVALID_ARGUMENT);
  SubmitJobRequest unknown = Message("r1", 0, 1);
  unknown.set_scorer("beauty");
  EXPECT_EQ(code({unknown}), grpc::StatusCode::NOT_FOUND);
  SubmitJobRequest incomplete = Message("r1", 0, 1);
  incomplete.set_items_total(2);
  EXPECT_EQ(code({incomplete}), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(store_->List(0, "")->jobs_size(), 0);
}

TEST_F(JobsTest, AMessageThatDoesNotParseIsNotTheEndOfAJob) {
  Start();
  SubmitJobRequest latin1 = Message("r1", 3, 4);
  latin1.mutable_items(0)->set_prompt("caf\xe9");
  Job job;
  const grpc::Status status = Submit({Message("r1", 0, 3), latin1}, &job);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("ddpo.reward.v1.SubmitJobRequest"));
  EXPECT_EQ(store_->List(0, "")->jobs_size(), 0);
}

TEST_F(JobsTest, AnUploadThatItsCallerCancelsLeavesNothing) {
  Start();
  {
    grpc::ClientContext context;
    Job job;
    auto writer = stub_->SubmitJob(&context, &job);
    ASSERT_TRUE(writer->Write(Message("r1", 0, 3)));
    context.TryCancel();
    EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  EXPECT_NE(SubmitItems("r1", 5).name(), "");
}

TEST_F(JobsTest, AnUploadThatFallsSilentIsEndedAndLeavesNothing) {
  service_options_.max_upload_silence = absl::Milliseconds(50);
  Start();
  {
    grpc::ClientContext context;
    Job job;
    auto writer = stub_->SubmitJob(&context, &job);
    ASSERT_TRUE(writer->Write(Message("r1", 0, 3)));
    // Neither more items nor the end.
    EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  EXPECT_EQ(store_->List(0, "")->jobs_size(), 0);
}

TEST_F(JobsTest, BoundsTheCallersWhoHoldAThread) {
  service_options_.max_long_calls = 0;
  Start();
  Job job;
  EXPECT_EQ(Submit({Message("r1", 0, 1)}, &job).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(JobsTest, AJobWhoseScorerChangedFails) {
  const Job job = StopAmidJob(30);
  Start("d2");
  const Job ended = Wait(job.name());
  EXPECT_EQ(ended.state(), reward::v1::JOB_STATE_FAILED);
  EXPECT_EQ(ended.error().reason(), "SCORER_CHANGED");
}

TEST_F(JobsTest, AJobThatIsDamagedOnDiskFails) {
  const Job job = StopAmidJob(30);
  {
    auto database = SqliteDatabase::Open(directory_ + "/jobs.db");
    ASSERT_TRUE(database.ok()) << database.status();
    ASSERT_TRUE((*database)->Execute("UPDATE items SET item = x'ff' WHERE result IS NULL").ok());
  }
  Start();
  const Job ended = Wait(job.name());
  EXPECT_EQ(ended.state(), reward::v1::JOB_STATE_FAILED);
  EXPECT_EQ(ended.error().reason(), "JOB_DAMAGED");
  EXPECT_THAT(ended.error().message(), HasSubstr("is damaged"));
}

TEST_F(JobsTest, AJobWhoseScorerIsMissingWaitsForAServerThatHasIt) {
  const Job job = StopAmidJob(30);
  Start("d1", "other");
  EXPECT_EQ(Wait(job.name(), 0).state(), reward::v1::JOB_STATE_RUNNING);
  Stop();
  Start();
  EXPECT_EQ(Wait(job.name()).items_succeeded(), 30);
}

TEST_F(JobsTest, AFullQueueDelaysAJobAndFailsNothing) {
  batching_.max_queue_items = 2;
  runner_options_.items_at_a_time = 2;
  runner_options_.workers = 4;
  Start();
  std::vector<Job> jobs;
  for (int i = 0; i < 6; ++i) jobs.push_back(SubmitItems(absl::StrCat("r", i), 11));
  for (const Job& job : jobs) {
    EXPECT_EQ(Wait(job.name()).items_succeeded(), 11);
    ExpectAllResults(job.name(), 11);
  }
}

TEST_F(JobsTest, ForgetsJobsSomeTimeAfterTheirEnd) {
  const absl::Time start = clock_.Now();
  runner_options_.clock = &clock_;
  runner_options_.max_age = absl::Hours(2);
  Start();
  const std::string name = SubmitItems("r1", 2).name();
  while (store_->Get(name)->state() != reward::v1::JOB_STATE_SUCCEEDED) std::this_thread::yield();
  clock_.Advance(absl::Hours(1));
  EXPECT_TRUE(store_->Get(name).ok());
  while (store_->Get(name).ok()) clock_.Advance(absl::Minutes(5));
  EXPECT_GE(clock_.Now(), start + absl::Hours(2));
}

}  // namespace
}  // namespace ddpo
