#pragma once

#include <grpcpp/grpcpp.h>

#include "ddpo/reward/v1/reward.pb.h"
#include "reward_server/scorer_pool.h"
#include "reward_server/service_options.h"

namespace ddpo {

// One unary Score call. The reactor deletes itself; the call ends when every item has an outcome.
grpc::ServerUnaryReactor* StartScoreCall(ScorerPool* pool, const RewardServiceOptions& options,
                                         grpc::CallbackServerContext* context,
                                         const reward::v1::ScoreRequest* request,
                                         reward::v1::ScoreResponse* response);

}  // namespace ddpo
