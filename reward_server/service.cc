#include "reward_server/service.h"

#include <memory>
#include <utility>
#include <vector>

#include "common/rpc/status.h"
#include "reward_server/score_call.h"
#include "reward_server/stream_call.h"

namespace ddpo {
namespace {

absl::Status DrainingStatus() { return absl::UnavailableError("the reward server is draining"); }

}  // namespace

RewardServiceImpl::RewardServiceImpl(ScorerPool* pool, const RewardServiceOptions& options)
    : pool_(pool), options_(options) {}

RewardServiceImpl::~RewardServiceImpl() = default;

grpc::ServerUnaryReactor* RewardServiceImpl::ListScorers(
    grpc::CallbackServerContext* context, const reward::v1::ListScorersRequest*,
    reward::v1::ListScorersResponse* response) {
  for (const Batcher* batcher : pool_->batchers()) {
    const ScorerInfo& info = batcher->info();
    reward::v1::Scorer* scorer = response->add_scorers();
    scorer->set_name(info.name);
    scorer->set_kind(info.kind);
    scorer->set_description(info.description);
    scorer->set_digest(info.digest);
    if (info.min_score.has_value()) scorer->set_min_score(*info.min_score);
    if (info.max_score.has_value()) scorer->set_max_score(*info.max_score);
    scorer->set_higher_is_better(info.higher_is_better);
    scorer->set_needs_prompt(info.needs_prompt);
    scorer->set_max_batch_size(static_cast<uint32_t>(info.max_batch_size));
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* RewardServiceImpl::Score(grpc::CallbackServerContext* context,
                                                   const reward::v1::ScoreRequest* request,
                                                   reward::v1::ScoreResponse* response) {
  bool draining = false;
  {
    absl::MutexLock lock(&mu_);
    draining = draining_;
  }
  if (draining) {
    CountRequest(options_, request->scorer(), DrainingStatus());
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(ToGrpcStatus(DrainingStatus()));
    return reactor;
  }
  return StartScoreCall(pool_, options_, context, request, response);
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* RewardServiceImpl::StreamScore(
    grpc::CallbackServerContext* context) {
  auto call = std::make_shared<StreamCall>(pool_, options_, context);
  StreamCall::Reactor* reactor = call->Start();
  bool draining = false;
  {
    absl::MutexLock lock(&mu_);
    draining = draining_;
    std::erase_if(streams_,
                  [](const std::weak_ptr<StreamCall>& stream) { return stream.expired(); });
    if (!draining) streams_.push_back(call);
  }
  if (draining) call->End(DrainingStatus());
  return reactor;
}

void RewardServiceImpl::Drain() {
  std::vector<std::weak_ptr<StreamCall>> streams;
  {
    absl::MutexLock lock(&mu_);
    draining_ = true;
    streams.swap(streams_);
  }
  for (const std::weak_ptr<StreamCall>& stream : streams) {
    if (std::shared_ptr<StreamCall> call = stream.lock()) call->End(DrainingStatus());
  }
}

}  // namespace ddpo
