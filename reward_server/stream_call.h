#pragma once

#include <grpcpp/grpcpp.h>

#include <deque>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "ddpo/reward/v1/reward.pb.h"
#include "reward_server/scorer_pool.h"
#include "reward_server/service_options.h"

namespace ddpo {

// One StreamScore call: reads items, submits each on its own, writes answers as they come. It reads
// on only while fewer than max_stream_items are under way or wait to be written, so that a client
// that does not take its answers stops being read.
//
// Shared by the gRPC reactor and the items in the batcher. The reactor outlives every item, as the
// call is finished only when none is left.
class StreamCall : public std::enable_shared_from_this<StreamCall> {
 public:
  // Of bytes: see common/rpc/raw_message.h.
  using Reactor = grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>;

  StreamCall(ScorerPool* pool, const RewardServiceOptions& options,
             const grpc::CallbackServerContext* context);

  // The reactor, which owns itself and holds this call. Reading begins at once.
  Reactor* Start() ABSL_LOCKS_EXCLUDED(mu_);

  // Takes no more items; ends with `status` once the accepted ones are answered.
  void End(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  class GrpcReactor;
  class Item;

  void OnRead(bool ok) ABSL_LOCKS_EXCLUDED(mu_);
  void OnWritten(bool ok) ABSL_LOCKS_EXCLUDED(mu_);
  void OnCancelled() ABSL_LOCKS_EXCLUDED(mu_);
  // Checks the message just read and submits its item. An error ends the stream.
  absl::Status Accept() ABSL_LOCKS_EXCLUDED(mu_);
  // An item has its answer.
  void Answer(const reward::v1::StreamScoreResponse& response) ABSL_LOCKS_EXCLUDED(mu_);
  bool cancelled() const ABSL_LOCKS_EXCLUDED(mu_);

  // Changes the state under the lock, then tells gRPC what follows from it.
  void Change(absl::FunctionRef<void()> change) ABSL_LOCKS_EXCLUDED(mu_);
  // Starts what the state allows: a write, a read, the end.
  void Proceed() ABSL_LOCKS_EXCLUDED(mu_);

  ScorerPool* const pool_;
  const RewardServiceOptions options_;
  const grpc::CallbackServerContext* const context_;
  Reactor* reactor_ = nullptr;
  // Belongs to gRPC while a read is under way, to OnRead afterwards.
  grpc::ByteBuffer request_;
  // Belongs to gRPC while a write is under way.
  grpc::ByteBuffer response_;

  mutable absl::Mutex mu_;
  // Set by the first message.
  Batcher* batcher_ ABSL_GUARDED_BY(mu_) = nullptr;
  bool reading_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  // No more items: the client is done, or status_ says why.
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  // Items in the batcher.
  int items_ ABSL_GUARDED_BY(mu_) = 0;
  // Threads that are about to use the reactor.
  int users_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<grpc::ByteBuffer> answers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ddpo
