#include "reward_server/score_call.h"

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/rpc/retry_hint.h"
#include "common/rpc/status.h"
#include "reward_server/scoring_item.h"

namespace ddpo {
namespace {

using reward::v1::ScoreRequest;
using reward::v1::ScoreResponse;

// The items of one call in the batcher. Request and response live until Finish, which is called
// when the last item is reported.
class UnaryItems : public BatchCall {
 public:
  UnaryItems(const ScorerInfo& scorer, const RewardServiceOptions& options,
             const grpc::CallbackServerContext& context, const ScoreRequest* request,
             ScoreResponse* response, grpc::ServerUnaryReactor* reactor)
      : BatchCall(CallerOf(context, options), ItemDeadline(context, options),
                  static_cast<size_t>(request->items_size()),
                  static_cast<int64_t>(request->ByteSizeLong())),
        scorer_(scorer),
        options_(options),
        request_(request),
        response_(response),
        reactor_(reactor),
        remaining_(items()) {}

  absl::StatusOr<ScoringInput> Prepare(size_t index) override {
    return ToScoringInput(request_->items(static_cast<int>(index)), scorer_,
                          options_.max_image_pixels);
  }

  void OnOutcome(size_t index, absl::StatusOr<ScoreValue> outcome) override {
    SetOutcome(outcome, response_->mutable_results(static_cast<int>(index)));
    ReportOne();
  }

  // A call of which a part was dropped fails as a whole.
  void OnDropped(size_t, absl::Status reason) override {
    {
      absl::MutexLock lock(&mu_);
      if (status_.ok()) status_ = std::move(reason);
    }
    ReportOne();
  }

 private:
  void ReportOne() {
    if (remaining_.fetch_sub(1) != 1) return;
    absl::Status status;
    {
      absl::MutexLock lock(&mu_);
      status = status_;
    }
    CountRequest(options_, scorer_.name, status);
    reactor_->Finish(ToGrpcStatus(status));
  }

  const ScorerInfo& scorer_;
  const RewardServiceOptions& options_;
  const ScoreRequest* const request_;
  ScoreResponse* const response_;
  grpc::ServerUnaryReactor* const reactor_;
  std::atomic<size_t> remaining_;
  absl::Mutex mu_;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
};

class ScoreReactor : public grpc::ServerUnaryReactor {
 public:
  void Start(ScorerPool* pool, const RewardServiceOptions& options,
             grpc::CallbackServerContext* context, const ScoreRequest* request,
             ScoreResponse* response) {
    absl::StatusOr<Batcher*> batcher = pool->Find(request->scorer());
    if (!batcher.ok()) {
      CountRequest(options, request->scorer(), batcher.status());
      return Finish(ToGrpcStatus(batcher.status()));
    }
    batcher_ = *batcher;
    response->set_scorer(batcher_->info().name);
    response->set_scorer_digest(batcher_->info().digest);
    for (const reward::v1::ScoreItem& item : request->items()) {
      response->add_results()->set_item_id(item.item_id());
    }
    items_ =
        std::make_shared<UnaryItems>(batcher_->info(), options, *context, request, response, this);
    absl::Status status = batcher_->Submit(items_);
    if (status.ok()) return;
    if (absl::IsResourceExhausted(status)) {
      context->AddTrailingMetadata(kRetryAfterKey,
                                   absl::StrCat(absl::ToInt64Milliseconds(batcher_->RetryAfter())));
    }
    CountRequest(options, request->scorer(), status);
    Finish(ToGrpcStatus(status));
  }

  void OnCancel() override {
    if (items_ == nullptr) return;
    items_->Cancel();
    batcher_->Sweep();
  }

  void OnDone() override { delete this; }

 private:
  Batcher* batcher_ = nullptr;
  std::shared_ptr<UnaryItems> items_;
};

}  // namespace

grpc::ServerUnaryReactor* StartScoreCall(ScorerPool* pool, const RewardServiceOptions& options,
                                         grpc::CallbackServerContext* context,
                                         const ScoreRequest* request, ScoreResponse* response) {
  auto* reactor = new ScoreReactor();
  reactor->Start(pool, options, context, request, response);
  return reactor;
}

}  // namespace ddpo
