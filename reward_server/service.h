#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "ddpo/reward/v1/reward.grpc.pb.h"
#include "reward_server/scorer_pool.h"
#include "reward_server/service_options.h"

namespace ddpo {

class StreamCall;

// The methods as callbacks; StreamScore in bytes.
using RewardServiceMethods = reward::v1::RewardService::WithCallbackMethod_ListScorers<
    reward::v1::RewardService::WithCallbackMethod_Score<
        reward::v1::RewardService::WithRawCallbackMethod_StreamScore<
            reward::v1::RewardService::Service>>>;

// ddpo.reward.v1.RewardService over a pool of scorers.
class RewardServiceImpl final : public RewardServiceMethods {
 public:
  // The pool outlives the service.
  RewardServiceImpl(ScorerPool* pool, const RewardServiceOptions& options);
  ~RewardServiceImpl() override;

  grpc::ServerUnaryReactor* ListScorers(grpc::CallbackServerContext* context,
                                        const reward::v1::ListScorersRequest* request,
                                        reward::v1::ListScorersResponse* response) override;
  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context,
                                  const reward::v1::ScoreRequest* request,
                                  reward::v1::ScoreResponse* response) override;
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* StreamScore(
      grpc::CallbackServerContext* context) override;

  // New calls get UNAVAILABLE; open streams get the answers to what they have sent, then
  // UNAVAILABLE. Calls that are under way end as usual.
  void Drain() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  ScorerPool* const pool_;
  const RewardServiceOptions options_;

  absl::Mutex mu_;
  bool draining_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::weak_ptr<StreamCall>> streams_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ddpo
