#include "tools/reward/reward_session.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/rpc/channel.h"
#include "common/rpc/retry.h"
#include "common/rpc/status.h"
#include "common/rpc/tls_diagnosis.h"

namespace ddpo {
namespace {

using reward::v1::Job;
using reward::v1::ScoreItem;

// Calls that only ask or say something.
constexpr absl::Duration kShortCall = absl::Seconds(20);
// One call or message holds at most so many images or bytes; a larger image goes alone.
constexpr int kItemsTogether = 64;
constexpr size_t kBytesTogether = size_t{4} << 20;
// The server's limit may be lower; past this one no call can be made.
constexpr size_t kLargestImage = kMaxMessageBytes - (size_t{1} << 16);
constexpr int kPageSize = 1000;
// gRPC 1.51 takes a connection that is only being opened for failed at times.
constexpr int kConnectAttempts = 3;
constexpr absl::Duration kConnectPause = absl::Milliseconds(200);

// Images that go together, read one group after the other.
class ItemReader {
 public:
  explicit ItemReader(const std::vector<ImageToScore>& images) : images_(images) {}

  // The next items; none at the end.
  absl::StatusOr<std::vector<ScoreItem>> Next() {
    std::vector<ScoreItem> items;
    size_t bytes = 0;
    while (next_ < images_.size() && items.size() < kItemsTogether) {
      DDPO_ASSIGN_OR_RETURN(std::string image, ReadFile(images_[next_].path));
      if (image.size() > kLargestImage) {
        return absl::InvalidArgumentError(absl::StrCat(images_[next_].path, " has ", image.size(),
                                                       " bytes; one call holds at most ",
                                                       kLargestImage));
      }
      if (!items.empty() && bytes + image.size() > kBytesTogether) break;
      bytes += image.size();
      ScoreItem& item = items.emplace_back();
      item.set_item_id(images_[next_].path);
      item.set_prompt(images_[next_].prompt);
      item.mutable_image()->set_encoded(std::move(image));
      ++next_;
    }
    return items;
  }

 private:
  const std::vector<ImageToScore>& images_;
  size_t next_ = 0;
};

// gRPC ends a call that comes while its server closes as CANCELLED; this client cancels none.
absl::Status FromServer(const grpc::Status& status) {
  if (status.error_code() != grpc::StatusCode::CANCELLED) return FromGrpcStatus(status);
  return absl::UnavailableError("the server closed");
}

}  // namespace

std::string FullJobName(const std::string& name) {
  return absl::StartsWith(name, "jobs/") ? name : absl::StrCat("jobs/", name);
}

absl::StatusOr<std::unique_ptr<RewardSession>> RewardSession::Connect(const Options& options) {
  DDPO_ASSIGN_OR_RETURN(
      const std::shared_ptr<grpc::Channel> channel,
      CreateChannel(options.address,
                    {.tls = options.security.tls(), .token_file = options.security.token_file()}));
  auto session = std::unique_ptr<RewardSession>(new RewardSession(options));
  session->service_ = reward::v1::RewardService::NewStub(channel);
  session->jobs_ = reward::v1::RewardJobs::NewStub(channel);
  absl::Status status;
  for (int i = 0; i < kConnectAttempts; ++i) {
    if (i > 0) absl::SleepFor(kConnectPause);
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + kShortCall));
    reward::v1::ListScorersResponse response;
    status = FromServer(session->service_->ListScorers(&context, {}, &response));
    session->scorers_.assign(response.scorers().begin(), response.scorers().end());
    if (!absl::IsUnavailable(status)) break;
  }
  DDPO_RETURN_IF_ERROR(session->Explain(status));
  return session;
}

absl::Status RewardSession::Explain(const absl::Status& error) const {
  if (error.ok()) return error;
  const absl::Status explained =
      ExplainConnection(error, options_.address, options_.security.tls());
  std::string hint;
  if (absl::IsUnauthenticated(error)) {
    hint = " (give the token with --token-file)";
  } else if (absl::IsUnimplemented(error)) {
    hint = ": the server has no such service; it takes jobs only with --jobs-database";
  } else if (absl::IsUnavailable(error) && explained == error) {
    hint = " (is the server running there? see --server)";
  }
  return absl::Status(error.code(), absl::StrCat("reward server ", options_.address, ": ",
                                                 explained.message(), hint));
}

absl::Status RewardSession::CheckScorer(const std::string& scorer,
                                        const std::vector<ImageToScore>& images) const {
  const auto found = std::find_if(scorers_.begin(), scorers_.end(),
                                  [&](const auto& one) { return one.name() == scorer; });
  if (found == scorers_.end()) {
    return absl::NotFoundError(absl::StrCat(
        "no scorer is called ", scorer, "; the reward server ", options_.address, " has ",
        absl::StrJoin(scorers_, ", ",
                      [](std::string* out, const auto& one) { out->append(one.name()); })));
  }
  if (!found->needs_prompt()) return absl::OkStatus();
  for (const ImageToScore& image : images) {
    if (!image.prompt.empty()) continue;
    return absl::InvalidArgumentError(absl::StrCat("scorer ", scorer, " needs prompts, and ",
                                                   image.path,
                                                   " has none: give --prompt or --prompts"));
  }
  return absl::OkStatus();
}

absl::Status RewardSession::Retry(
    const std::string& what, absl::Duration timeout,
    const std::function<grpc::Status(grpc::ClientContext*)>& call) const {
  RetryOptions retry;
  retry.attempt_timeout = timeout;
  return Explain(CallWithRetry(what, retry, [&](absl::Time deadline) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(deadline));
    return FromServer(call(&context));
  }));
}

absl::StatusOr<ScoredImages> RewardSession::Score(const std::string& scorer,
                                                  const std::vector<ImageToScore>& images) {
  DDPO_RETURN_IF_ERROR(CheckScorer(scorer, images));
  ScoredImages scored;
  ItemReader reader(images);
  while (true) {
    DDPO_ASSIGN_OR_RETURN(std::vector<ScoreItem> items, reader.Next());
    if (items.empty()) return scored;
    reward::v1::ScoreRequest request;
    request.set_scorer(scorer);
    for (ScoreItem& item : items) *request.add_items() = std::move(item);
    reward::v1::ScoreResponse response;
    DDPO_RETURN_IF_ERROR(Retry("scoring", options_.timeout, [&](grpc::ClientContext* context) {
      return service_->Score(context, request, &response);
    }));
    scored.scorer = response.scorer();
    scored.scorer_digest = response.scorer_digest();
    scored.results.insert(scored.results.end(), response.results().begin(),
                          response.results().end());
  }
}

absl::Status RewardSession::Upload(const std::string& scorer, const std::string& request_id,
                                   const std::vector<ImageToScore>& images, absl::Time deadline,
                                   Job* job) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  const auto writer = jobs_->SubmitJob(&context, job);
  ItemReader reader(images);
  reward::v1::SubmitJobRequest message;
  message.set_request_id(request_id);
  message.set_scorer(scorer);
  message.set_items_total(static_cast<int64_t>(images.size()));
  while (true) {
    absl::StatusOr<std::vector<ScoreItem>> items = reader.Next();
    if (!items.ok()) {
      context.TryCancel();
      (void)writer->Finish();
      return items.status();
    }
    if (items->empty()) break;
    for (ScoreItem& item : *items) *message.add_items() = std::move(item);
    // The server ended the call; Finish says why.
    if (!writer->Write(message)) break;
    message.Clear();
  }
  writer->WritesDone();
  return FromServer(writer->Finish());
}

absl::StatusOr<Job> RewardSession::Submit(const std::string& scorer, const std::string& request_id,
                                          const std::vector<ImageToScore>& images) {
  DDPO_RETURN_IF_ERROR(CheckScorer(scorer, images));
  RetryOptions retry;
  retry.attempt_timeout = options_.timeout;
  Job job;
  DDPO_RETURN_IF_ERROR(Explain(CallWithRetry("submitting", retry, [&](absl::Time deadline) {
    return Upload(scorer, request_id, images, deadline, &job);
  })));
  return job;
}

absl::StatusOr<Job> RewardSession::WaitJob(const std::string& name, absl::Duration timeout) {
  reward::v1::WaitJobRequest request;
  request.set_name(FullJobName(name));
  request.mutable_timeout()->set_seconds(absl::ToInt64Seconds(timeout));
  request.mutable_timeout()->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(timeout % absl::Seconds(1))));
  Job job;
  DDPO_RETURN_IF_ERROR(
      Retry(request.name(), timeout + kShortCall,
            [&](grpc::ClientContext* context) { return jobs_->WaitJob(context, request, &job); }));
  return job;
}

absl::StatusOr<std::vector<Job>> RewardSession::ListJobs(int limit) {
  std::vector<Job> jobs;
  reward::v1::ListJobsRequest request;
  do {
    request.set_page_size(std::min(kPageSize, limit - static_cast<int>(jobs.size())));
    reward::v1::ListJobsResponse response;
    DDPO_RETURN_IF_ERROR(Retry("listing jobs", kShortCall, [&](grpc::ClientContext* context) {
      return jobs_->ListJobs(context, request, &response);
    }));
    jobs.insert(jobs.end(), response.jobs().begin(), response.jobs().end());
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty() && static_cast<int>(jobs.size()) < limit);
  return jobs;
}

absl::StatusOr<ScoredImages> RewardSession::JobResults(const std::string& name) {
  ScoredImages scored;
  reward::v1::ListJobResultsRequest request;
  request.set_name(FullJobName(name));
  request.set_page_size(kPageSize);
  do {
    reward::v1::ListJobResultsResponse response;
    DDPO_RETURN_IF_ERROR(Retry(request.name(), kShortCall, [&](grpc::ClientContext* context) {
      return jobs_->ListJobResults(context, request, &response);
    }));
    scored.scorer = response.scorer();
    scored.scorer_digest = response.scorer_digest();
    scored.results.insert(scored.results.end(), response.results().begin(),
                          response.results().end());
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  return scored;
}

absl::StatusOr<Job> RewardSession::CancelJob(const std::string& name) {
  reward::v1::CancelJobRequest request;
  request.set_name(FullJobName(name));
  Job job;
  DDPO_RETURN_IF_ERROR(Retry(request.name(), kShortCall, [&](grpc::ClientContext* context) {
    return jobs_->CancelJob(context, request, &job);
  }));
  return job;
}

}  // namespace ddpo
