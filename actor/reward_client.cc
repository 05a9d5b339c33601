#include "actor/reward_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/rpc/channel.h"
#include "common/rpc/retry_hint.h"
#include "common/rpc/status.h"
#include "common/rpc/tls_diagnosis.h"

namespace ddpo {
namespace {

using reward::v1::ScoreRequest;
using reward::v1::ScoreResponse;
using reward::v1::ScoreResult;

// How often a wait asks whether it was cancelled.
constexpr absl::Duration kPollInterval = absl::Milliseconds(50);

// Errors that another attempt may not meet.
bool MayPass(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
    // gRPC ends a call so that comes while its server closes. Ours are told from it by the caller.
    case absl::StatusCode::kCancelled:
      return true;
    default:
      return false;
  }
}

absl::Status Annotate(const absl::Status& status, const std::string& context) {
  return absl::Status(status.code(), absl::StrCat(context, ": ", status.message()));
}

// Between half of the duration and all of it, so that clients do not come back all at once.
absl::Duration Jittered(absl::Duration duration) {
  absl::BitGen generator;
  return duration * absl::Uniform(generator, 0.5, 1.0);
}

absl::Status CancelledStatus() { return absl::CancelledError("scoring was cancelled"); }

}  // namespace

// The images of one Score call: which have a result, which are still to be scored.
class RewardClient::Batch {
 public:
  Batch(absl::Span<const Image> images, absl::Span<const std::string> prompts,
        const RewardClientOptions& options)
      : images_(images),
        prompts_(prompts),
        options_(options),
        results_(images.size()),
        failures_(images.size()) {}

  // The next images without a result, as many as fit into one RPC. Empty when all have one.
  ScoreRequest NextRequest() const {
    ScoreRequest request;
    request.set_scorer(options_.scorer);
    int64_t bytes = 0;
    for (size_t i = 0; i < images_.size(); ++i) {
      if (results_[i].has_value()) continue;
      const int64_t image_bytes = static_cast<int64_t>(images_[i].rgb.size());
      if (bytes > 0 && bytes + image_bytes > options_.max_call_bytes) break;
      bytes += image_bytes;
      reward::v1::ScoreItem* item = request.add_items();
      item->set_item_id(absl::StrCat(i));
      item->set_prompt(prompts_[i]);
      reward::v1::RawImage* raw = item->mutable_image()->mutable_raw();
      raw->set_width(static_cast<uint32_t>(images_[i].width));
      raw->set_height(static_cast<uint32_t>(images_[i].height));
      raw->set_rgb(images_[i].rgb.data(), images_[i].rgb.size());
    }
    return request;
  }

  // Takes the results over. An error is final; `failure` gets that of an item to try again.
  absl::Status Take(const ScoreRequest& request, const ScoreResponse& response,
                    absl::Status* failure) {
    if (response.results_size() != request.items_size()) {
      return absl::InternalError(
          absl::StrCat(response.results_size(), " results for ", request.items_size(), " items"));
    }
    for (int i = 0; i < response.results_size(); ++i) {
      const ScoreResult& result = response.results(i);
      size_t index = 0;
      if (result.item_id() != request.items(i).item_id() ||
          !absl::SimpleAtoi(result.item_id(), &index)) {
        return absl::InternalError(absl::StrCat("result ", i, " is of item '", result.item_id(),
                                                "', expected '", request.items(i).item_id(), "'"));
      }
      DDPO_RETURN_IF_ERROR(TakeOne(index, result, response.scorer_digest(), failure));
    }
    return absl::OkStatus();
  }

  std::vector<RewardResult> Results() && {
    std::vector<RewardResult> results;
    results.reserve(results_.size());
    for (std::optional<RewardResult>& result : results_) results.push_back(*std::move(result));
    return results;
  }

 private:
  absl::Status TakeOne(size_t index, const ScoreResult& result, const std::string& digest,
                       absl::Status* failure) {
    if (result.has_error()) {
      const auto code = static_cast<absl::StatusCode>(result.error().code());
      const absl::Status error(code == absl::StatusCode::kOk ? absl::StatusCode::kUnknown : code,
                               absl::StrCat("image ", index, ": ", result.error().reason(), ": ",
                                            result.error().message()));
      if (!MayPass(error.code())) return error;
      if (++failures_[index] >= options_.max_item_attempts) {
        return Annotate(error, absl::StrCat("after ", failures_[index], " attempts"));
      }
      *failure = error;
      return absl::OkStatus();
    }
    if (!result.has_score() || !std::isfinite(result.score().value())) {
      return absl::InternalError(
          absl::StrCat("image ", index, " has neither a finite score nor an error"));
    }
    RewardResult& taken = results_[index].emplace();
    taken.value = result.score().value();
    taken.details.insert(result.score().details().begin(), result.score().details().end());
    taken.text = result.score().text();
    taken.scorer_digest = digest;
    return absl::OkStatus();
  }

  const absl::Span<const Image> images_;
  const absl::Span<const std::string> prompts_;
  const RewardClientOptions& options_;
  std::vector<std::optional<RewardResult>> results_;
  std::vector<int> failures_;
};

absl::StatusOr<std::unique_ptr<RewardClient>> RewardClient::Create(
    const std::vector<std::string>& addresses, const RewardClientOptions& options) {
  if (addresses.empty()) return absl::InvalidArgumentError("no reward server's address is given");
  if (options.scorer.empty()) return absl::InvalidArgumentError("no scorer is named");
  auto client = std::unique_ptr<RewardClient>(new RewardClient(options));
  for (const std::string& address : addresses) {
    DDPO_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel,
                          CreateChannel(address, {.tls = options.security.tls(),
                                                  .token_file = options.security.token_file()}));
    client->servers_.push_back({address, reward::v1::RewardService::NewStub(channel)});
  }
  return client;
}

absl::StatusOr<std::vector<RewardResult>> RewardClient::Score(
    absl::Span<const Image> images, absl::Span<const std::string> prompts,
    const std::function<bool()>& cancelled) {
  if (prompts.size() != images.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(images.size(), " images with ", prompts.size(), " prompts"));
  }
  const absl::Time give_up = options_.clock->Now() + options_.give_up_after;
  absl::Duration backoff = options_.initial_backoff;
  Batch batch(images, prompts, options_);
  int attempts = 0;
  for (ScoreRequest request = batch.NextRequest(); request.items_size() > 0;
       request = batch.NextRequest()) {
    if (cancelled && cancelled()) return CancelledStatus();
    const size_t index = CurrentServer();
    const std::string place = absl::StrCat("reward server ", servers_[index].address);
    ScoreResponse response;
    absl::Duration pause = absl::ZeroDuration();
    absl::Status failure = Call(servers_[index], request, cancelled, give_up, &response, &pause);
    ++attempts;
    if (failure.ok()) {
      DDPO_RETURN_IF_ERROR(CheckDigest(response.scorer_digest(), servers_[index].address));
      if (absl::Status status = batch.Take(request, response, &failure); !status.ok()) {
        return Annotate(status, place);
      }
      if (failure.ok()) {
        backoff = options_.initial_backoff;
        continue;
      }
    } else if (cancelled && cancelled()) {
      return CancelledStatus();
    } else if (!MayPass(failure.code())) {
      return Annotate(failure, place);
    }
    LeaveServer(index);
    pause = std::max(pause, Jittered(backoff));
    backoff = std::min(backoff * 2, options_.max_backoff);
    if (options_.clock->Now() + pause >= give_up) {
      failure = ExplainConnection(failure, servers_[index].address, options_.security.tls());
      return Annotate(failure, absl::StrCat(place, ", attempt ", attempts, ", giving up after ",
                                            absl::FormatDuration(options_.give_up_after)));
    }
    DDPO_RETURN_IF_ERROR(Pause(pause, cancelled));
  }
  return std::move(batch).Results();
}

absl::Status RewardClient::Call(const Server& server, const ScoreRequest& request,
                                const std::function<bool()>& cancelled, absl::Time give_up,
                                ScoreResponse* response, absl::Duration* retry_after) const {
  grpc::ClientContext context;
  const absl::Duration timeout =
      std::min(options_.attempt_timeout, give_up - options_.clock->Now());
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  absl::Mutex mu;
  bool done = false;
  grpc::Status status;
  server.stub->async()->Score(&context, &request, response, [&](grpc::Status result) {
    absl::MutexLock lock(&mu);
    status = std::move(result);
    done = true;
  });
  {
    absl::MutexLock lock(&mu);
    while (!mu.AwaitWithTimeout(absl::Condition(&done), kPollInterval)) {
      if (cancelled && cancelled()) context.TryCancel();
    }
  }
  const auto hint = context.GetServerTrailingMetadata().find(kRetryAfterKey);
  int64_t milliseconds = 0;
  if (hint != context.GetServerTrailingMetadata().end() &&
      absl::SimpleAtoi(absl::string_view(hint->second.data(), hint->second.size()),
                       &milliseconds)) {
    *retry_after = absl::Milliseconds(milliseconds);
  }
  return FromGrpcStatus(status);
}

absl::Status RewardClient::Pause(absl::Duration duration,
                                 const std::function<bool()>& cancelled) const {
  while (duration > absl::ZeroDuration()) {
    if (cancelled && cancelled()) return CancelledStatus();
    const absl::Duration slice = std::min(duration, kPollInterval);
    options_.clock->Sleep(slice);
    duration -= slice;
  }
  return absl::OkStatus();
}

absl::Status RewardClient::CheckDigest(const std::string& digest, const std::string& address) {
  absl::MutexLock lock(&mu_);
  if (digest_.empty()) digest_ = digest;
  if (digest == digest_) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "reward server ", address, " scores with ", options_.scorer, " of digest '", digest,
      "', earlier scores are of digest '", digest_, "': they are not comparable"));
}

size_t RewardClient::CurrentServer() {
  absl::MutexLock lock(&mu_);
  return current_server_;
}

void RewardClient::LeaveServer(size_t index) {
  absl::MutexLock lock(&mu_);
  if (current_server_ == index) current_server_ = (index + 1) % servers_.size();
}

}  // namespace ddpo
