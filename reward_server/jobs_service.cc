#include "reward_server/jobs_service.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "common/rpc/raw_message.h"
#include "common/rpc/status.h"

namespace ddpo {
namespace {

using reward::v1::Job;
using reward::v1::ScoreItem;
using reward::v1::SubmitJobRequest;

constexpr size_t kMaxRequestIdBytes = 256;

// The same bytes for the same item, whatever order its map has in memory.
std::string SerializeDeterministically(const ScoreItem& item) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  item.SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

template <typename Response>
grpc::Status Answer(absl::StatusOr<Response> result, Response* response) {
  if (!result.ok()) return ToGrpcStatus(result.status());
  *response = *std::move(result);
  return grpc::Status::OK;
}

}  // namespace

// Counts a call that holds its thread for long.
class JobsService::LongCall {
 public:
  explicit LongCall(JobsService* service) : service_(service) {
    absl::MutexLock lock(&service_->mu_);
    is_admitted_ = service_->long_calls_ < service_->options_.max_long_calls;
    if (is_admitted_) ++service_->long_calls_;
  }
  ~LongCall() {
    absl::MutexLock lock(&service_->mu_);
    if (is_admitted_) --service_->long_calls_;
  }
  LongCall(const LongCall&) = delete;

  absl::Status status() const {
    if (is_admitted_) return absl::OkStatus();
    return absl::ResourceExhaustedError("too many callers submit or wait for jobs; try again");
  }

 private:
  JobsService* const service_;
  bool is_admitted_ = false;
};

// A job in the making. What was not committed is forgotten.
class JobsService::Upload {
 public:
  explicit Upload(JobStore* store) : store_(store) {}
  ~Upload() {
    if (!name_.empty()) (void)store_->Delete(name_);
  }
  Upload(const Upload&) = delete;

  absl::Status Begin(const SubmitJobRequest& first, const ScorerInfo& scorer) {
    DDPO_ASSIGN_OR_RETURN(name_, store_->BeginUpload(scorer.name, scorer.digest));
    request_id_ = first.request_id();
    scorer_ = scorer.name;
    expected_items_ = first.items_total();
    content_.Update(absl::StrCat(scorer.name, "\n"));
    return absl::OkStatus();
  }

  absl::Status Add(const SubmitJobRequest& message, int64_t max_items) {
    for (const auto& [what, first, later] :
         {std::make_tuple("request_id", &request_id_, &message.request_id()),
          std::make_tuple("scorer", &scorer_, &message.scorer())}) {
      if (!later->empty() && *later != *first) {
        return absl::InvalidArgumentError(
            absl::StrCat(what, " changes from '", *first, "' to '", *later, "' inside the stream"));
      }
    }
    items_ += message.items_size();
    if (items_ > max_items) {
      return absl::InvalidArgumentError(absl::StrCat("a job has at most ", max_items, " items"));
    }
    std::vector<const ScoreItem*> items;
    for (const ScoreItem& item : message.items()) {
      items.push_back(&item);
      const std::string bytes = SerializeDeterministically(item);
      content_.Update(absl::StrCat(bytes.size(), ":"));
      content_.Update(bytes);
    }
    return items.empty() ? absl::OkStatus() : store_->AddItems(name_, items);
  }

  absl::StatusOr<Job> Commit() {
    if (items_ == 0) return absl::InvalidArgumentError("the job has no items");
    if (expected_items_ != 0 && expected_items_ != items_) {
      return absl::InvalidArgumentError(absl::StrCat(
          items_, " items came, items_total in the first message is ", expected_items_));
    }
    DDPO_ASSIGN_OR_RETURN(Job job, store_->CommitUpload(name_, request_id_, content_.HexDigest()));
    name_.clear();
    return job;
  }

 private:
  JobStore* const store_;
  std::string name_;
  std::string request_id_;
  std::string scorer_;
  int64_t expected_items_ = 0;
  int64_t items_ = 0;
  Sha256 content_;
};

JobsService::JobsService(JobStore* store, JobRunner* runner, ScorerPool* pool,
                         const JobsServiceOptions& options)
    : store_(store),
      runner_(runner),
      pool_(pool),
      options_(options),
      silence_(options.max_upload_silence) {
  using Handler = grpc::internal::ClientStreamingHandler<JobsService, grpc::ByteBuffer, Job>;
  const auto* methods = SubmitJobRequest::descriptor()->file()->FindServiceByName("RewardJobs");
  MarkMethodStreamed(methods->FindMethodByName("SubmitJob")->index(),
                     new Handler(std::mem_fn(&JobsService::SubmitJobBytes), this));
}

grpc::Status JobsService::SubmitJobBytes(grpc::ServerContext* context,
                                         grpc::ServerReader<grpc::ByteBuffer>* reader,
                                         Job* response) {
  const LongCall call(this);
  if (!call.status().ok()) return ToGrpcStatus(call.status());
  Upload upload(store_);
  if (absl::Status status = ReadUpload(context, reader, &upload); !status.ok()) {
    return ToGrpcStatus(status);
  }
  absl::StatusOr<Job> job = upload.Commit();
  if (job.ok()) runner_->Add(job->name());
  return Answer(std::move(job), response);
}

absl::Status JobsService::ReadUpload(grpc::ServerContext* context,
                                     grpc::ServerReader<grpc::ByteBuffer>* reader, Upload* upload) {
  grpc::ByteBuffer bytes;
  // The time in which the server stores what came is not the caller's silence.
  const auto read = [&] {
    const SilenceWatch::Wait wait(&silence_, [context] { context->TryCancel(); });
    return reader->Read(&bytes);
  };
  if (!read()) return absl::InvalidArgumentError("the stream has no message");
  SubmitJobRequest message;
  DDPO_RETURN_IF_ERROR(ParseMessage(&bytes, &message));
  if (message.request_id().empty() || message.request_id().size() > kMaxRequestIdBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the first message needs a request_id of 1 … ", kMaxRequestIdBytes, " bytes"));
  }
  DDPO_ASSIGN_OR_RETURN(Batcher * batcher, pool_->Find(message.scorer()));
  DDPO_RETURN_IF_ERROR(upload->Begin(message, batcher->info()));
  DDPO_RETURN_IF_ERROR(upload->Add(message, options_.max_items));
  while (read()) {
    DDPO_RETURN_IF_ERROR(ParseMessage(&bytes, &message));
    DDPO_RETURN_IF_ERROR(upload->Add(message, options_.max_items));
  }
  // Read ends the same way for a caller that is done and for one that is gone.
  if (context->IsCancelled()) {
    return absl::CancelledError("the caller is gone, or was silent for too long");
  }
  return absl::OkStatus();
}

grpc::Status JobsService::GetJob(grpc::ServerContext*, const reward::v1::GetJobRequest* request,
                                 Job* response) {
  return Answer(store_->Get(request->name()), response);
}

grpc::Status JobsService::ListJobs(grpc::ServerContext*, const reward::v1::ListJobsRequest* request,
                                   reward::v1::ListJobsResponse* response) {
  return Answer(store_->List(request->page_size(), request->page_token()), response);
}

grpc::Status JobsService::WaitJob(grpc::ServerContext* context,
                                  const reward::v1::WaitJobRequest* request, Job* response) {
  const LongCall call(this);
  if (!call.status().ok()) return ToGrpcStatus(call.status());
  absl::Duration wait = options_.max_wait;
  if (request->has_timeout()) {
    wait = std::min(wait, absl::Seconds(request->timeout().seconds()) +
                              absl::Nanoseconds(request->timeout().nanos()));
  }
  const absl::Time deadline = std::min(absl::Now() + wait, absl::FromChrono(context->deadline()));
  return Answer(
      runner_->WaitForEnd(request->name(), deadline, [context] { return context->IsCancelled(); }),
      response);
}

grpc::Status JobsService::CancelJob(grpc::ServerContext*,
                                    const reward::v1::CancelJobRequest* request, Job* response) {
  absl::StatusOr<Job> job = store_->Cancel(request->name());
  if (job.ok()) runner_->Drop(request->name());
  return Answer(std::move(job), response);
}

grpc::Status JobsService::DeleteJob(grpc::ServerContext*,
                                    const reward::v1::DeleteJobRequest* request,
                                    google::protobuf::Empty*) {
  const absl::Status status = store_->Delete(request->name());
  if (status.ok()) runner_->Drop(request->name());
  return ToGrpcStatus(status);
}

grpc::Status JobsService::ListJobResults(grpc::ServerContext*,
                                         const reward::v1::ListJobResultsRequest* request,
                                         reward::v1::ListJobResultsResponse* response) {
  return Answer(store_->ListResults(request->name(), request->page_size(), request->page_token()),
                response);
}

}  // namespace ddpo
