#include "reward_server/jobs_store.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

using reward::v1::ItemError;
using reward::v1::Job;
using reward::v1::JobState;
using reward::v1::ListJobResultsResponse;
using reward::v1::ListJobsResponse;
using reward::v1::ScoreItem;

constexpr int64_t kSchemaVersion = 1;
constexpr int kDefaultPageSize = 50;
constexpr int kLargestPageSize = 1000;

// state is a JobState, 0 while the job is uploaded. Times are microseconds since 1970. `sequence`
// orders jobs by their acceptance.
constexpr char kSchema[] = R"(
  CREATE TABLE jobs (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    request_id TEXT UNIQUE,
    content_digest TEXT,
    scorer TEXT NOT NULL,
    scorer_digest TEXT NOT NULL,
    state INTEGER NOT NULL,
    items_total INTEGER NOT NULL DEFAULT 0,
    items_succeeded INTEGER NOT NULL DEFAULT 0,
    items_failed INTEGER NOT NULL DEFAULT 0,
    create_time INTEGER,
    end_time INTEGER,
    error BLOB);
  CREATE TABLE items (
    job TEXT NOT NULL REFERENCES jobs(name) ON DELETE CASCADE,
    item_index INTEGER NOT NULL,
    item BLOB,
    result BLOB,
    PRIMARY KEY (job, item_index));
  CREATE INDEX items_without_result ON items(job, item_index) WHERE result IS NULL;
  PRAGMA user_version = 1;
)";

constexpr char kJobColumns[] =
    "name, state, scorer, items_total, items_succeeded, items_failed, create_time, end_time, error,"
    " sequence";

std::string NewName() {
  absl::BitGen generator;
  return absl::StrCat("jobs/", absl::Hex(absl::Uniform<uint64_t>(generator), absl::kZeroPad16),
                      absl::Hex(absl::Uniform<uint64_t>(generator), absl::kZeroPad16));
}

void SetTimestamp(int64_t micros, google::protobuf::Timestamp* timestamp) {
  timestamp->set_seconds(micros / 1000000);
  timestamp->set_nanos(static_cast<int32_t>(micros % 1000000) * 1000);
}

// From a row of kJobColumns.
Job ToJob(const SqliteStatement& row) {
  Job job;
  job.set_name(row.Bytes(0));
  job.set_state(static_cast<JobState>(row.Int(1)));
  job.set_scorer(row.Bytes(2));
  job.set_items_total(row.Int(3));
  job.set_items_succeeded(row.Int(4));
  job.set_items_failed(row.Int(5));
  SetTimestamp(row.Int(6), job.mutable_create_time());
  if (!row.IsNull(7)) SetTimestamp(row.Int(7), job.mutable_end_time());
  if (!row.IsNull(8)) job.mutable_error()->ParseFromString(row.Bytes(8));
  return job;
}

bool HasEnded(JobState state) {
  return state != reward::v1::JOB_STATE_PENDING && state != reward::v1::JOB_STATE_RUNNING;
}

absl::Status NoSuchJob(const std::string& name) {
  return absl::NotFoundError(absl::StrCat("no job '", name, "'"));
}

int PageSize(int requested) {
  return requested <= 0 ? kDefaultPageSize : std::min(requested, kLargestPageSize);
}

// A page token says which list it belongs to and the place after which the next page begins.
std::string ToToken(absl::string_view list, int64_t place) {
  return absl::WebSafeBase64Escape(absl::StrCat(list, "|", place));
}

absl::StatusOr<int64_t> FromToken(absl::string_view list, const std::string& token) {
  std::string text;
  int64_t place = 0;
  if (absl::WebSafeBase64Unescape(token, &text)) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits('|', 1));
    if (parts.first == list && absl::SimpleAtoi(parts.second, &place)) return place;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("page_token '", token, "' was not handed out for this list"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<JobStore>> JobStore::Open(const std::string& path,
                                                         const JobStoreOptions& options) {
  DDPO_ASSIGN_OR_RETURN(auto database, SqliteDatabase::Open(path));
  auto store = std::unique_ptr<JobStore>(new JobStore(std::move(database), options));
  if (absl::Status status = store->CreateTables(); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
  }
  return store;
}

absl::Status JobStore::CreateTables() {
  absl::MutexLock lock(&mu_);
  DDPO_ASSIGN_OR_RETURN(auto transaction, SqliteTransaction::Begin(database_.get()));
  DDPO_ASSIGN_OR_RETURN(const int64_t version, QueryInt("PRAGMA user_version"));
  if (version > kSchemaVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the file has version ", version, ", this program knows up to ", kSchemaVersion));
  }
  if (version == 0) DDPO_RETURN_IF_ERROR(database_->Execute(kSchema));
  DDPO_RETURN_IF_ERROR(database_->Execute("DELETE FROM jobs WHERE state = 0"));
  return transaction.Commit();
}

absl::StatusOr<int64_t> JobStore::QueryInt(absl::string_view sql) const {
  DDPO_ASSIGN_OR_RETURN(SqliteStatement statement, database_->Prepare(sql));
  DDPO_RETURN_IF_ERROR(statement.Step().status());
  return statement.Int(0);
}

absl::Status JobStore::CheckRoom() const {
  DDPO_ASSIGN_OR_RETURN(const int64_t pages, QueryInt("PRAGMA page_count"));
  DDPO_ASSIGN_OR_RETURN(const int64_t free_pages, QueryInt("PRAGMA freelist_count"));
  DDPO_ASSIGN_OR_RETURN(const int64_t page_size, QueryInt("PRAGMA page_size"));
  if ((pages - free_pages) * page_size > options_.max_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the jobs hold ", (pages - free_pages) * page_size, " bytes, at most ",
                     options_.max_bytes, " are kept; delete some"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> JobStore::BeginUpload(const std::string& scorer,
                                                  const std::string& digest) {
  absl::MutexLock lock(&mu_);
  DDPO_RETURN_IF_ERROR(CheckRoom());
  DDPO_ASSIGN_OR_RETURN(const int64_t jobs, QueryInt("SELECT COUNT(*) FROM jobs"));
  if (jobs >= options_.max_jobs) {
    return absl::ResourceExhaustedError(
        absl::StrCat("there are ", jobs, " jobs, no more are kept; delete some"));
  }
  const std::string name = NewName();
  DDPO_ASSIGN_OR_RETURN(
      SqliteStatement insert,
      database_->Prepare(
          "INSERT INTO jobs (name, scorer, scorer_digest, state) VALUES (?, ?, ?, 0)"));
  DDPO_RETURN_IF_ERROR(insert.BindText(1, name).BindText(2, scorer).BindText(3, digest).Run());
  return name;
}

absl::Status JobStore::AddItems(const std::string& upload,
                                absl::Span<const ScoreItem* const> items) {
  absl::MutexLock lock(&mu_);
  DDPO_RETURN_IF_ERROR(CheckRoom());
  DDPO_ASSIGN_OR_RETURN(auto transaction, SqliteTransaction::Begin(database_.get()));
  DDPO_ASSIGN_OR_RETURN(
      SqliteStatement count,
      database_->Prepare("SELECT items_total FROM jobs WHERE name = ? AND state = 0"));
  DDPO_ASSIGN_OR_RETURN(const bool found, count.BindText(1, upload).Step());
  if (!found) return NoSuchJob(upload);
  int64_t index = count.Int(0);
  count.Reset();
  DDPO_ASSIGN_OR_RETURN(
      SqliteStatement insert,
      database_->Prepare("INSERT INTO items (job, item_index, item) VALUES (?, ?, ?)"));
  for (const ScoreItem* item : items) {
    DDPO_RETURN_IF_ERROR(
        insert.BindText(1, upload).Bind(2, index++).BindBlob(3, item->SerializeAsString()).Run());
  }
  DDPO_ASSIGN_OR_RETURN(SqliteStatement update,
                        database_->Prepare("UPDATE jobs SET items_total = ? WHERE name = ?"));
  DDPO_RETURN_IF_ERROR(update.Bind(1, index).BindText(2, upload).Run());
  return transaction.Commit();
}

absl::StatusOr<Job> JobStore::CommitUpload(const std::string& upload, const std::string& request_id,
                                           const std::string& content_digest) {
  absl::MutexLock lock(&mu_);
  DDPO_ASSIGN_OR_RETURN(auto transaction, SqliteTransaction::Begin(database_.get()));
  DDPO_ASSIGN_OR_RETURN(
      SqliteStatement first,
      database_->Prepare("SELECT name, content_digest FROM jobs WHERE request_id = ?"));
  DDPO_ASSIGN_OR_RETURN(const bool exists, first.BindText(1, request_id).Step());
  std::string name = upload;
  absl::Status status;
  if (exists) {
    name = first.Bytes(0);
    if (first.Bytes(1) != content_digest) {
      status = absl::AlreadyExistsError(absl::StrCat("request_id '", request_id, "' was used for ",
                                                     name, ", which has other content"));
    }
    first.Reset();
    DDPO_ASSIGN_OR_RETURN(SqliteStatement forget,
                          database_->Prepare("DELETE FROM jobs WHERE name = ?"));
    DDPO_RETURN_IF_ERROR(forget.BindText(1, upload).Run());
  } else {
    first.Reset();
    // A new sequence number: jobs are listed and run in the order of their acceptance.
    DDPO_ASSIGN_OR_RETURN(
        SqliteStatement accept,
        database_->Prepare("UPDATE jobs SET request_id = ?, content_digest = ?, state = ?, "
                           "create_time = ?, sequence = (SELECT MAX(sequence) + 1 FROM jobs) "
                           "WHERE name = ? AND state = 0"));
    DDPO_RETURN_IF_ERROR(accept.BindText(1, request_id)
                             .BindText(2, content_digest)
                             .Bind(3, reward::v1::JOB_STATE_PENDING)
                             .Bind(4, absl::ToUnixMicros(options_.clock->Now()))
                             .BindText(5, upload)
                             .Run());
    if (database_->changes() == 0) return NoSuchJob(upload);
  }
  DDPO_ASSIGN_OR_RETURN(Job job, GetLocked(name));
  DDPO_RETURN_IF_ERROR(transaction.Commit());
  if (!status.ok()) return status;
  return job;
}

absl::StatusOr<Job> JobStore::Get(const std::string& name) const {
  absl::MutexLock lock(&mu_);
  return GetLocked(name);
}

absl::StatusOr<Job> JobStore::GetLocked(const std::string& name) const {
  DDPO_ASSIGN_OR_RETURN(SqliteStatement select,
                        database_->Prepare(absl::StrCat(
                            "SELECT ", kJobColumns, " FROM jobs WHERE name = ? AND state > 0")));
  DDPO_ASSIGN_OR_RETURN(const bool found, select.BindText(1, name).Step());
  if (!found) return NoSuchJob(name);
  return ToJob(select);
}

absl::StatusOr<ListJobsResponse> JobStore::List(int page_size, const std::string& token) const {
  int64_t before = std::numeric_limits<int64_t>::max();
  if (!token.empty()) {
    DDPO_ASSIGN_OR_RETURN(before, FromToken("jobs", token));
  }
  const int limit = PageSize(page_size);
  absl::MutexLock lock(&mu_);
  DDPO_ASSIGN_OR_RETURN(SqliteStatement select, database_->Prepare(absl::StrCat(
                                                    "SELECT ", kJobColumns,
                                                    " FROM jobs WHERE state > 0 AND sequence < ? "
                                                    "ORDER BY sequence DESC LIMIT ?")));
  select.Bind(1, before).Bind(2, limit + 1);
  ListJobsResponse response;
  int64_t last = 0;
  while (true) {
    DDPO_ASSIGN_OR_RETURN(const bool found, select.Step());
    if (!found) return response;
    if (response.jobs_size() == limit) {
      response.set_next_page_token(ToToken("jobs", last));
      return response;
    }
    last = select.Int(9);
    *response.add_jobs() = ToJob(select);
  }
}

absl::StatusOr<ListJobResultsResponse> JobStore::ListResults(const std::string& name, int page_size,
                                                             const std::string& token) const {
  int64_t after = -1;
  if (!token.empty()) {
    DDPO_ASSIGN_OR_RETURN(after, FromToken(name, token));
  }
  const int limit = PageSize(page_size);
  absl::MutexLock lock(&mu_);
  ListJobResultsResponse response;
  DDPO_ASSIGN_OR_RETURN(
      SqliteStatement job,
      database_->Prepare("SELECT scorer, scorer_digest FROM jobs WHERE name = ? AND state > 0"));
  DDPO_ASSIGN_OR_RETURN(const bool found, job.BindText(1, name).Step());
  if (!found) return NoSuchJob(name);
  response.set_scorer(job.Bytes(0));
  response.set_scorer_digest(job.Bytes(1));
  DDPO_ASSIGN_OR_RETURN(
      SqliteStatement select,
      database_->Prepare("SELECT item_index, result FROM items WHERE job = ? AND item_index > ? "
                         "AND result IS NOT NULL ORDER BY item_index LIMIT ?"));
  select.BindText(1, name).Bind(2, after).Bind(3, limit + 1);
  while (true) {
    DDPO_ASSIGN_OR_RETURN(const bool more, select.Step());
    if (!more) return response;
    if (response.results_size() == limit) {
      response.set_next_page_token(ToToken(name, after));
      return response;
    }
    after = select.Int(0);
    response.add_results()->ParseFromString(select.Bytes(1));
  }
}

absl::StatusOr<std::vector<std::string>> JobStore::Unfinished() const {
  absl::MutexLock lock(&mu_);
  DDPO_ASSIGN_OR_RETURN(
      SqliteStatement select,
      database_->Prepare("SELECT name FROM jobs WHERE state IN (?, ?) ORDER BY sequence"));
  select.Bind(1, reward::v1::JOB_STATE_PENDING).Bind(2, reward::v1::JOB_STATE_RUNNING);
  std::vector<std::string> names;
  while (true) {
    DDPO_ASSIGN_OR_RETURN(const bool found, select.Step());
    if (!found) return names;
    names.push_back(select.Bytes(0));
  }
}

absl::StatusOr<JobStore::Work> JobStore::NextWork(const std::string& name, int max_items,
                                                  int64_t max_bytes) {
  absl::MutexLock lock(&mu_);
  Work work;
  DDPO_ASSIGN_OR_RETURN(
      SqliteStatement job,
      database_->Prepare(
          "SELECT state, scorer, scorer_digest FROM jobs WHERE name = ? AND state > 0"));
  DDPO_ASSIGN_OR_RETURN(const bool found, job.BindText(1, name).Step());
  if (!found) return NoSuchJob(name);
  const auto state = static_cast<JobState>(job.Int(0));
  work.scorer = job.Bytes(1);
  work.scorer_digest = job.Bytes(2);
  job.Reset();
  if (HasEnded(state)) return work;
  if (state == reward::v1::JOB_STATE_PENDING) {
    DDPO_ASSIGN_OR_RETURN(SqliteStatement start,
                          database_->Prepare("UPDATE jobs SET state = ? WHERE name = ?"));
    DDPO_RETURN_IF_ERROR(start.Bind(1, reward::v1::JOB_STATE_RUNNING).BindText(2, name).Run());
  }
  DDPO_ASSIGN_OR_RETURN(
      SqliteStatement select,
      database_->Prepare("SELECT item_index, item FROM items WHERE job = ? AND result IS NULL "
                         "ORDER BY item_index LIMIT ?"));
  select.BindText(1, name).Bind(2, max_items);
  while (true) {
    DDPO_ASSIGN_OR_RETURN(const bool more, select.Step());
    if (!more) return work;
    const std::string bytes = select.Bytes(1);
    max_bytes -= static_cast<int64_t>(bytes.size());
    if (max_bytes < 0 && !work.items.empty()) return work;
    PendingItem& item = work.items.emplace_back();
    item.index = select.Int(0);
    if (!item.item.ParseFromString(bytes)) {
      return absl::DataLossError(absl::StrCat(name, ", item ", item.index, " is damaged"));
    }
  }
}

absl::StatusOr<Job> JobStore::RecordResults(const std::string& name,
                                            absl::Span<const ItemResult> results) {
  absl::MutexLock lock(&mu_);
  DDPO_ASSIGN_OR_RETURN(auto transaction, SqliteTransaction::Begin(database_.get()));
  DDPO_ASSIGN_OR_RETURN(Job job, GetLocked(name));
  if (HasEnded(job.state())) return job;
  DDPO_ASSIGN_OR_RETURN(SqliteStatement write,
                        database_->Prepare("UPDATE items SET result = ?, item = NULL "
                                           "WHERE job = ? AND item_index = ? AND result IS NULL"));
  int64_t succeeded = job.items_succeeded();
  int64_t failed = job.items_failed();
  for (const ItemResult& result : results) {
    DDPO_RETURN_IF_ERROR(write.BindBlob(1, result.result.SerializeAsString())
                             .BindText(2, name)
                             .Bind(3, result.index)
                             .Run());
    (result.result.has_score() ? succeeded : failed) += database_->changes();
  }
  DDPO_ASSIGN_OR_RETURN(
      SqliteStatement count,
      database_->Prepare("UPDATE jobs SET items_succeeded = ?, items_failed = ? WHERE name = ?"));
  DDPO_RETURN_IF_ERROR(count.Bind(1, succeeded).Bind(2, failed).BindText(3, name).Run());
  if (succeeded + failed == job.items_total()) {
    ItemError error;
    error.set_code(static_cast<int>(absl::StatusCode::kAborted));
    error.set_reason("ALL_ITEMS_FAILED");
    error.set_message("no item has a score; the results say why");
    DDPO_RETURN_IF_ERROR(EndLocked(
        name, succeeded > 0 ? reward::v1::JOB_STATE_SUCCEEDED : reward::v1::JOB_STATE_FAILED,
        succeeded > 0 ? nullptr : &error));
  }
  DDPO_ASSIGN_OR_RETURN(job, GetLocked(name));
  DDPO_RETURN_IF_ERROR(transaction.Commit());
  return job;
}

absl::Status JobStore::EndLocked(const std::string& name, JobState state, const ItemError* error) {
  DDPO_ASSIGN_OR_RETURN(
      SqliteStatement end,
      database_->Prepare("UPDATE jobs SET state = ?, end_time = ?, error = ? WHERE name = ?"));
  end.Bind(1, state).Bind(2, absl::ToUnixMicros(options_.clock->Now())).BindText(4, name);
  if (error != nullptr) end.BindBlob(3, error->SerializeAsString());
  DDPO_RETURN_IF_ERROR(end.Run());
  // Pictures that nobody will score.
  DDPO_ASSIGN_OR_RETURN(SqliteStatement forget,
                        database_->Prepare("DELETE FROM items WHERE job = ? AND result IS NULL"));
  return forget.BindText(1, name).Run();
}

absl::StatusOr<Job> JobStore::End(const std::string& name, JobState state, const ItemError* error) {
  absl::MutexLock lock(&mu_);
  DDPO_ASSIGN_OR_RETURN(auto transaction, SqliteTransaction::Begin(database_.get()));
  DDPO_ASSIGN_OR_RETURN(Job job, GetLocked(name));
  if (HasEnded(job.state())) return job;
  DDPO_RETURN_IF_ERROR(EndLocked(name, state, error));
  DDPO_ASSIGN_OR_RETURN(job, GetLocked(name));
  DDPO_RETURN_IF_ERROR(transaction.Commit());
  return job;
}

absl::StatusOr<Job> JobStore::Fail(const std::string& name, const ItemError& error) {
  return End(name, reward::v1::JOB_STATE_FAILED, &error);
}

absl::StatusOr<Job> JobStore::Cancel(const std::string& name) {
  return End(name, reward::v1::JOB_STATE_CANCELLED, nullptr);
}

absl::Status JobStore::Delete(const std::string& name) {
  absl::MutexLock lock(&mu_);
  DDPO_ASSIGN_OR_RETURN(SqliteStatement forget,
                        database_->Prepare("DELETE FROM jobs WHERE name = ?"));
  DDPO_RETURN_IF_ERROR(forget.BindText(1, name).Run());
  return database_->changes() > 0 ? absl::OkStatus() : NoSuchJob(name);
}

absl::StatusOr<int64_t> JobStore::DeleteEndedBefore(absl::Time time) {
  absl::MutexLock lock(&mu_);
  DDPO_ASSIGN_OR_RETURN(SqliteStatement forget,
                        database_->Prepare("DELETE FROM jobs WHERE end_time < ?"));
  DDPO_RETURN_IF_ERROR(forget.Bind(1, absl::ToUnixMicros(time)).Run());
  return database_->changes();
}

}  // namespace ddpo
