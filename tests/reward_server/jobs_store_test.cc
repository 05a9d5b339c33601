#include "reward_server/jobs_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/fake_clock.h"

namespace ddpo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using reward::v1::Job;
using reward::v1::ScoreItem;

class JobStoreTest : public ::testing::Test {
 protected:
  JobStoreTest()
      : directory_(::testing::TempDir() + "/jobs_store_test_" + std::to_string(getpid())) {
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
    options_.clock = &clock_;
    Reopen();
  }
  ~JobStoreTest() override { std::filesystem::remove_all(directory_); }

  // As after a crash: nothing but the file is left.
  void Reopen() {
    store_.reset();
    auto store = JobStore::Open(directory_ + "/jobs.db", options_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  std::string Upload(int items) {
    auto upload = store_->BeginUpload("width", "d1");
    EXPECT_TRUE(upload.ok()) << upload.status();
    for (int i = 0; i < items; ++i) {
      ScoreItem item;
      item.set_item_id(absl::StrCat("item ", i));
      const ScoreItem* pointer = &item;
      const absl::Status status = store_->AddItems(*upload, {&pointer, 1});
      EXPECT_TRUE(status.ok()) << status;
    }
    return *upload;
  }

  Job Submit(const std::string& request_id, int items) {
    auto job = store_->CommitUpload(Upload(items), request_id, absl::StrCat("digest ", items));
    EXPECT_TRUE(job.ok()) << job.status();
    return *job;
  }

  static JobStore::ItemResult Score(int64_t index, double value) {
    JobStore::ItemResult result;
    result.index = index;
    result.result.set_item_id(absl::StrCat("item ", index));
    result.result.mutable_score()->set_value(value);
    return result;
  }
  static JobStore::ItemResult Error(int64_t index) {
    JobStore::ItemResult result;
    result.index = index;
    result.result.mutable_error()->set_reason("IMAGE_MISSING");
    return result;
  }

  std::vector<int64_t> PendingIndices(const std::string& name, int limit = 100,
                                      int64_t max_bytes = 1000) {
    auto work = store_->NextWork(name, limit, max_bytes);
    EXPECT_TRUE(work.ok()) << work.status();
    std::vector<int64_t> indices;
    for (const auto& item : work->items) indices.push_back(item.index);
    return indices;
  }

  const std::string directory_;
  FakeClock clock_;
  JobStoreOptions options_;
  std::unique_ptr<JobStore> store_;
};

TEST_F(JobStoreTest, AnAcceptedJobSurvivesAndIsWorkedOffInOrder) {
  const Job job = Submit("r1", 3);
  EXPECT_EQ(job.state(), reward::v1::JOB_STATE_PENDING);
  EXPECT_EQ(job.items_total(), 3);
  EXPECT_EQ(job.create_time().seconds(), absl::ToUnixSeconds(clock_.Now()));
  EXPECT_FALSE(job.has_end_time());
  Reopen();
  EXPECT_EQ(store_->Get(job.name())->SerializeAsString(), job.SerializeAsString());
  EXPECT_THAT(*store_->Unfinished(), ElementsAre(job.name()));
  auto work = store_->NextWork(job.name(), 2, 1000);
  ASSERT_TRUE(work.ok()) << work.status();
  EXPECT_EQ(work->scorer, "width");
  EXPECT_EQ(work->scorer_digest, "d1");
  ASSERT_THAT(work->items, SizeIs(2));
  EXPECT_EQ(work->items[1].item.item_id(), "item 1");
  EXPECT_EQ(store_->Get(job.name())->state(), reward::v1::JOB_STATE_RUNNING);
}

TEST_F(JobStoreTest, WorkIsBoundedInItemsAndBytesAndNeverEmpty) {
  const std::string name = Submit("r1", 5).name();
  EXPECT_THAT(PendingIndices(name, 3), SizeIs(3));
  // An item of the test has 8 bytes.
  EXPECT_THAT(PendingIndices(name, 3, 16), SizeIs(2));
  EXPECT_THAT(PendingIndices(name, 3, 1), SizeIs(1));
}

TEST_F(JobStoreTest, TheLastResultEndsTheJob) {
  const std::string name = Submit("r1", 3).name();
  EXPECT_THAT(PendingIndices(name), ElementsAre(0, 1, 2));
  EXPECT_EQ(store_->RecordResults(name, {Score(0, 1), Error(2)})->state(),
            reward::v1::JOB_STATE_RUNNING);
  EXPECT_THAT(PendingIndices(name), ElementsAre(1));
  clock_.Advance(absl::Seconds(5));
  const Job job = *store_->RecordResults(name, {Score(1, 2)});
  EXPECT_EQ(job.state(), reward::v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(job.items_succeeded(), 2);
  EXPECT_EQ(job.items_failed(), 1);
  EXPECT_EQ(job.end_time().seconds() - job.create_time().seconds(), 5);
  EXPECT_THAT(*store_->Unfinished(), IsEmpty());
  EXPECT_THAT(PendingIndices(name), IsEmpty());
}

TEST_F(JobStoreTest, AJobWithoutAnyScoreHasFailed) {
  const std::string name = Submit("r1", 1).name();
  PendingIndices(name);
  const Job job = *store_->RecordResults(name, {Error(0)});
  EXPECT_EQ(job.state(), reward::v1::JOB_STATE_FAILED);
  EXPECT_EQ(job.error().reason(), "ALL_ITEMS_FAILED");
}

TEST_F(JobStoreTest, AnItemKeepsItsFirstResultAndIsCountedOnce) {
  const std::string name = Submit("r1", 2).name();
  PendingIndices(name);
  ASSERT_TRUE(store_->RecordResults(name, {Score(0, 1)}).ok());
  EXPECT_EQ(store_->RecordResults(name, {Score(0, 99)})->items_succeeded(), 1);
  auto results = store_->ListResults(name, 0, "");
  ASSERT_EQ(results->results_size(), 1);
  EXPECT_EQ(results->results(0).score().value(), 1);
}

TEST_F(JobStoreTest, TheSameRequestReturnsTheFirstJob) {
  const Job first = Submit("r1", 2);
  EXPECT_EQ(Submit("r1", 2).name(), first.name());
  EXPECT_EQ(store_->List(0, "")->jobs_size(), 1);
}

TEST_F(JobStoreTest, TheSameRequestIdWithOtherContentIsRefused) {
  const Job first = Submit("r1", 2);
  auto second = store_->CommitUpload(Upload(1), "r1", "digest 1");
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(second.status().message(), HasSubstr(first.name()));
  EXPECT_EQ(store_->List(0, "")->jobs_size(), 1);
  EXPECT_EQ(store_->Get(first.name())->items_total(), 2);
}

TEST_F(JobStoreTest, AnUploadThatWasNotCompletedIsForgotten) {
  const std::string upload = Upload(2);
  EXPECT_EQ(store_->Get(upload).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->List(0, "")->jobs_size(), 0);
  Reopen();
  EXPECT_EQ(store_->CommitUpload(upload, "r1", "d").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(JobStoreTest, CancellationKeepsResultsAndTakesNoMore) {
  const std::string name = Submit("r1", 3).name();
  PendingIndices(name);
  ASSERT_TRUE(store_->RecordResults(name, {Score(0, 1)}).ok());
  EXPECT_EQ(store_->Cancel(name)->state(), reward::v1::JOB_STATE_CANCELLED);
  EXPECT_EQ(store_->RecordResults(name, {Score(1, 1)})->items_succeeded(), 1);
  EXPECT_EQ(store_->ListResults(name, 0, "")->results_size(), 1);
  EXPECT_THAT(PendingIndices(name), IsEmpty());
  EXPECT_EQ(store_->Fail(name, {})->state(), reward::v1::JOB_STATE_CANCELLED);
}

TEST_F(JobStoreTest, AFailedJobSaysWhy) {
  const std::string name = Submit("r1", 1).name();
  reward::v1::ItemError error;
  error.set_reason("SCORER_CHANGED");
  EXPECT_EQ(store_->Fail(name, error)->state(), reward::v1::JOB_STATE_FAILED);
  Reopen();
  EXPECT_EQ(store_->Get(name)->error().reason(), "SCORER_CHANGED");
}

TEST_F(JobStoreTest, ADeletedJobIsGoneWithItsRequestId) {
  const std::string name = Submit("r1", 1).name();
  EXPECT_TRUE(store_->Delete(name).ok());
  for (const absl::Status& status :
       {store_->Get(name).status(), store_->Delete(name), store_->Cancel(name).status(),
        store_->NextWork(name, 1, 1).status(), store_->RecordResults(name, {}).status(),
        store_->ListResults(name, 0, "").status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
  }
  EXPECT_NE(Submit("r1", 5).name(), name);
}

TEST_F(JobStoreTest, JobsArePagedFromTheNewestOn) {
  std::vector<std::string> names;
  for (int i = 0; i < 5; ++i) names.push_back(Submit(absl::StrCat(i), 1).name());
  std::vector<std::string> listed;
  std::string token;
  int pages = 0;
  do {
    auto page = store_->List(2, token);
    ASSERT_TRUE(page.ok()) << page.status();
    for (const Job& job : page->jobs()) listed.push_back(job.name());
    token = page->next_page_token();
    // A job that comes in between moves nothing.
    if (++pages == 1) Submit("new", 1);
  } while (!token.empty());
  EXPECT_EQ(pages, 3);
  EXPECT_THAT(listed, ElementsAre(names[4], names[3], names[2], names[1], names[0]));
}

TEST_F(JobStoreTest, ResultsArePagedInItemOrder) {
  const std::string name = Submit("r1", 5).name();
  PendingIndices(name);
  std::vector<JobStore::ItemResult> results;
  for (int i = 4; i >= 0; --i) results.push_back(Score(i, i));
  ASSERT_TRUE(store_->RecordResults(name, results).ok());
  std::vector<double> values;
  std::string token;
  do {
    auto page = store_->ListResults(name, 2, token);
    ASSERT_TRUE(page.ok()) << page.status();
    EXPECT_EQ(page->scorer(), "width");
    EXPECT_EQ(page->scorer_digest(), "d1");
    for (const auto& result : page->results()) values.push_back(result.score().value());
    token = page->next_page_token();
  } while (!token.empty());
  EXPECT_THAT(values, ElementsAre(0, 1, 2, 3, 4));
}

TEST_F(JobStoreTest, ATokenOfAnotherListIsRefused) {
  const std::string name = Submit("r1", 1).name();
  Submit("r2", 1);
  const std::string token = store_->List(1, "")->next_page_token();
  ASSERT_FALSE(token.empty());
  EXPECT_EQ(store_->ListResults(name, 0, token).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(store_->List(0, "nonsense").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(JobStoreTest, JobsExpireByTheTimeSinceTheyEnded) {
  const std::string ended = Submit("r1", 1).name();
  const std::string running = Submit("r2", 1).name();
  PendingIndices(ended);
  ASSERT_TRUE(store_->RecordResults(ended, {Score(0, 1)}).ok());
  clock_.Advance(absl::Hours(1));
  EXPECT_EQ(*store_->DeleteEndedBefore(clock_.Now() - absl::Hours(2)), 0);
  EXPECT_EQ(*store_->DeleteEndedBefore(clock_.Now() - absl::Minutes(1)), 1);
  EXPECT_EQ(store_->Get(ended).status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(store_->Get(running).ok());
}

TEST_F(JobStoreTest, RefusesMoreThanItMayHold) {
  options_.max_jobs = 2;
  Reopen();
  Submit("r1", 1);
  Submit("r2", 1);
  EXPECT_EQ(store_->BeginUpload("width", "d1").status().code(),
            absl::StatusCode::kResourceExhausted);
  options_.max_jobs = 100;
  options_.max_bytes = 1;
  Reopen();
  EXPECT_EQ(store_->BeginUpload("width", "d1").status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_F(JobStoreTest, RefusesTheFileOfANewerVersion) {
  store_.reset();
  {
    auto database = SqliteDatabase::Open(directory_ + "/jobs.db");
    ASSERT_TRUE((*database)->Execute("PRAGMA user_version = 99").ok());
  }
  auto store = JobStore::Open(directory_ + "/jobs.db", options_);
  EXPECT_EQ(store.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(store.status().message(), HasSubstr("version 99"));
}

TEST_F(JobStoreTest, RefusesAFileThatIsNoDatabase) {
  store_.reset();
  std::filesystem::remove_all(directory_);
  std::filesystem::create_directories(directory_);
  FILE* file = fopen((directory_ + "/jobs.db").c_str(), "w");
  for (int i = 0; i < 1000; ++i) fputs("not a database", file);
  fclose(file);
  auto store = JobStore::Open(directory_ + "/jobs.db", options_);
  EXPECT_EQ(store.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(store.status().message(), HasSubstr("jobs.db"));
}

}  // namespace
}  // namespace ddpo
