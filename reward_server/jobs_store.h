#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/base/clock.h"
#include "ddpo/reward/v1/jobs.pb.h"
#include "reward_server/sqlite.h"

namespace ddpo {

struct JobStoreOptions {
  // Most bytes that the database may hold; past that submissions are RESOURCE_EXHAUSTED.
  int64_t max_bytes = int64_t{16} << 30;
  // Most jobs, ended ones too.
  int64_t max_jobs = 10000;
  Clock* clock = Clock::Real();
};

// Jobs, their items and results in one SQLite file. Each method is one transaction: whatever
// moment the process dies at, it happened as a whole or not at all. An item's picture is deleted
// when its result is written. Thread-safe; blocks for the disk.
//
// Names of jobs that do not exist are NOT_FOUND throughout.
class JobStore {
 public:
  // Forgets uploads that a former process did not complete. FAILED_PRECONDITION for the file of a
  // newer version.
  static absl::StatusOr<std::unique_ptr<JobStore>> Open(const std::string& path,
                                                        const JobStoreOptions& options);

  // A job in the making, invisible to all but AddItems, CommitUpload and Delete. Returns its name.
  absl::StatusOr<std::string> BeginUpload(const std::string& scorer, const std::string& digest);

  // Adds items after those that are there.
  absl::Status AddItems(const std::string& upload,
                        absl::Span<const reward::v1::ScoreItem* const> items);

  // Accepts the upload as a pending job. If a job of this request_id exists the upload is
  // forgotten, and the answer is that job, or ALREADY_EXISTS if its content digest is another.
  absl::StatusOr<reward::v1::Job> CommitUpload(const std::string& upload,
                                               const std::string& request_id,
                                               const std::string& content_digest);

  absl::StatusOr<reward::v1::Job> Get(const std::string& name) const;

  // Newest first. INVALID_ARGUMENT for a token that was not handed out.
  absl::StatusOr<reward::v1::ListJobsResponse> List(int page_size, const std::string& token) const;

  // In item order, of those that have one. The token belongs to one job.
  absl::StatusOr<reward::v1::ListJobResultsResponse> ListResults(const std::string& name,
                                                                 int page_size,
                                                                 const std::string& token) const;

  // Names of pending and running jobs, oldest first.
  absl::StatusOr<std::vector<std::string>> Unfinished() const;

  struct PendingItem {
    int64_t index = 0;
    reward::v1::ScoreItem item;
  };
  struct Work {
    std::string scorer;
    // Of the scorer when the job was accepted.
    std::string scorer_digest;
    // The next items without a result; empty if the job has ended.
    std::vector<PendingItem> items;
  };
  // Marks a pending job as running and returns its next items: at least one, and as many as the
  // limits let.
  absl::StatusOr<Work> NextWork(const std::string& name, int max_items, int64_t max_bytes);

  struct ItemResult {
    int64_t index = 0;
    reward::v1::ScoreResult result;
  };
  // Writes results of a running job and ends it after the last one. An item that has a result keeps
  // it; a job that has ended is left alone.
  absl::StatusOr<reward::v1::Job> RecordResults(const std::string& name,
                                                absl::Span<const ItemResult> results);

  // Ends the job as failed or cancelled, unless it has ended already.
  absl::StatusOr<reward::v1::Job> Fail(const std::string& name, const reward::v1::ItemError& error);
  absl::StatusOr<reward::v1::Job> Cancel(const std::string& name);

  absl::Status Delete(const std::string& name);

  // Deletes the jobs that ended before that time; returns how many.
  absl::StatusOr<int64_t> DeleteEndedBefore(absl::Time time);

 private:
  JobStore(std::unique_ptr<SqliteDatabase> database, const JobStoreOptions& options)
      : options_(options), database_(std::move(database)) {}

  absl::Status CreateTables() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status CheckRoom() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<int64_t> QueryInt(absl::string_view sql) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<reward::v1::Job> GetLocked(const std::string& name) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status EndLocked(const std::string& name, reward::v1::JobState state,
                         const reward::v1::ItemError* error) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<reward::v1::Job> End(const std::string& name, reward::v1::JobState state,
                                      const reward::v1::ItemError* error) ABSL_LOCKS_EXCLUDED(mu_);

  const JobStoreOptions options_;
  mutable absl::Mutex mu_;
  const std::unique_ptr<SqliteDatabase> database_ ABSL_PT_GUARDED_BY(mu_);
};

}  // namespace ddpo
