#include "reward_server/stream_call.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/rpc/raw_message.h"
#include "common/rpc/status.h"
#include "reward_server/scoring_item.h"

namespace ddpo {

using reward::v1::ScoreItem;
using reward::v1::StreamScoreRequest;
using reward::v1::StreamScoreResponse;

class StreamCall::GrpcReactor : public StreamCall::Reactor {
 public:
  explicit GrpcReactor(std::shared_ptr<StreamCall> call) : call_(std::move(call)) {}

  void OnReadDone(bool ok) override { call_->OnRead(ok); }
  void OnWriteDone(bool ok) override { call_->OnWritten(ok); }
  void OnCancel() override { call_->OnCancelled(); }
  void OnDone() override { delete this; }

 private:
  const std::shared_ptr<StreamCall> call_;
};

class StreamCall::Item : public BatchCall {
 public:
  Item(std::shared_ptr<StreamCall> stream, const ScorerInfo& scorer, ScoreItem item)
      : BatchCall(CallerOf(*stream->context_, stream->options_),
                  ItemDeadline(*stream->context_, stream->options_), 1,
                  static_cast<int64_t>(item.ByteSizeLong())),
        stream_(std::move(stream)),
        scorer_(scorer),
        item_(std::move(item)) {}

  bool cancelled() const override { return stream_->cancelled(); }

  absl::StatusOr<ScoringInput> Prepare(size_t) override {
    return ToScoringInput(item_, scorer_, stream_->options_.max_image_pixels);
  }

  void OnOutcome(size_t, absl::StatusOr<ScoreValue> outcome) override {
    StreamScoreResponse response;
    response.set_scorer(scorer_.name);
    response.set_scorer_digest(scorer_.digest);
    response.mutable_result()->set_item_id(item_.item_id());
    SetOutcome(outcome, response.mutable_result());
    stream_->Answer(response);
  }

  void OnDropped(size_t index, absl::Status reason) override {
    OnOutcome(index, std::move(reason));
  }

 private:
  const std::shared_ptr<StreamCall> stream_;
  const ScorerInfo& scorer_;
  const ScoreItem item_;
};

StreamCall::StreamCall(ScorerPool* pool, const RewardServiceOptions& options,
                       const grpc::CallbackServerContext* context)
    : pool_(pool), options_(options), context_(context) {}

StreamCall::Reactor* StreamCall::Start() {
  auto* reactor = new GrpcReactor(shared_from_this());
  reactor_ = reactor;
  Proceed();
  return reactor;
}

void StreamCall::End(const absl::Status& status) {
  Change([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (!ended_) status_ = status;
    ended_ = true;
  });
}

void StreamCall::OnRead(bool ok) {
  const absl::Status status = ok ? Accept() : absl::OkStatus();
  Change([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    reading_ = false;
    if (ok && status.ok()) return;
    if (!ended_) status_ = status;
    ended_ = true;
  });
}

absl::Status StreamCall::Accept() {
  StreamScoreRequest request;
  DDPO_RETURN_IF_ERROR(ParseMessage(&request_, &request));
  Batcher* batcher = nullptr;
  {
    absl::MutexLock lock(&mu_);
    if (ended_) return absl::OkStatus();
    if (batcher_ == nullptr) {
      DDPO_ASSIGN_OR_RETURN(batcher_, pool_->Find(request.scorer()));
    } else if (!request.scorer().empty() && request.scorer() != batcher_->info().name) {
      return absl::InvalidArgumentError(absl::StrCat("the stream is for scorer '",
                                                     batcher_->info().name, "', a message names '",
                                                     request.scorer(), "'"));
    }
    batcher = batcher_;
    if (!request.has_item()) return absl::OkStatus();
    ++items_;
  }
  auto item = std::make_shared<Item>(shared_from_this(), batcher->info(),
                                     std::move(*request.mutable_item()));
  const absl::Status status = batcher->Submit(item);
  if (absl::IsResourceExhausted(status)) {
    item->OnOutcome(
        0, ItemFailure(status.code(), "QUEUE_FULL",
                       absl::StrCat(status.message(), "; try again in ",
                                    absl::ToInt64Milliseconds(batcher->RetryAfter()), " ms")));
  } else if (!status.ok()) {
    item->OnOutcome(0, status);
  }
  return absl::OkStatus();
}

void StreamCall::Answer(const StreamScoreResponse& response) {
  grpc::ByteBuffer bytes = ToBytes(response);
  Change([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    --items_;
    if (!cancelled_) answers_.push_back(std::move(bytes));
  });
}

void StreamCall::OnWritten(bool ok) {
  Change([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { writing_ = false; });
  if (!ok) OnCancelled();
}

void StreamCall::OnCancelled() {
  Batcher* batcher = nullptr;
  Change([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    batcher = batcher_;
    cancelled_ = true;
    if (!ended_) status_ = absl::CancelledError("the client is gone");
    ended_ = true;
    answers_.clear();
  });
  if (batcher != nullptr) batcher->Sweep();
}

bool StreamCall::cancelled() const {
  absl::MutexLock lock(&mu_);
  return cancelled_;
}

void StreamCall::Change(absl::FunctionRef<void()> change) {
  {
    absl::MutexLock lock(&mu_);
    change();
    ++users_;
  }
  Proceed();
  {
    absl::MutexLock lock(&mu_);
    --users_;
  }
  Proceed();
}

void StreamCall::Proceed() {
  bool write = false;
  bool read = false;
  bool finish = false;
  absl::Status status;
  std::string scorer;
  {
    absl::MutexLock lock(&mu_);
    if (finished_) return;
    if (!writing_ && !answers_.empty()) {
      response_ = std::move(answers_.front());
      answers_.pop_front();
      writing_ = write = true;
    }
    if (!reading_ && !ended_ &&
        items_ + static_cast<int>(answers_.size()) < options_.max_stream_items) {
      reading_ = read = true;
    }
    if (ended_ && items_ == 0 && users_ == 0 && !writing_) {
      finished_ = finish = true;
      status = status_;
      if (batcher_ != nullptr) scorer = batcher_->info().name;
    }
  }
  if (write) reactor_->StartWrite(&response_);
  if (read) reactor_->StartRead(&request_);
  if (finish) {
    CountRequest(options_, scorer, status);
    reactor_->Finish(ToGrpcStatus(status));
  }
}

}  // namespace ddpo
