#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/base/clock.h"
#include "common/tensors/image.h"
#include "ddpo/config/v1/security.pb.h"
#include "ddpo/reward/v1/reward.grpc.pb.h"

namespace ddpo {

struct RewardResult {
  double value = 0;
  std::map<std::string, double> details;
  std::string text;
  std::string scorer_digest;
};

struct RewardClientOptions {
  // The scorer's name, as the server lists it.
  std::string scorer;
  // Deadline of one RPC.
  absl::Duration attempt_timeout = absl::Seconds(60);
  // Score gives up after this time, whatever the reason: long enough for a server to be restarted.
  absl::Duration give_up_after = absl::Minutes(5);
  // Times that one item may fail on a server that answers.
  int max_item_attempts = 3;
  // Wait before a repetition; doubles up to the maximum, with jitter. The server's own hint goes
  // before.
  absl::Duration initial_backoff = absl::Milliseconds(100);
  absl::Duration max_backoff = absl::Seconds(5);
  // Most bytes of images in one RPC; a larger image goes alone.
  int64_t max_call_bytes = int64_t{16} << 20;
  Clock* clock = Clock::Real();
  // Its `tls` and `token_file`, as in ChannelOptions.
  config::v1::SecurityConfig security = {};
};

// Gets rewards from one or several servers. A failed reward is a status, never a number.
class RewardClient {
 public:
  // Connects lazily, so servers may start later. INVALID_ARGUMENT for no address or no scorer.
  static absl::StatusOr<std::unique_ptr<RewardClient>> Create(
      const std::vector<std::string>& addresses, const RewardClientOptions& options);

  // Scores the images, of which each has its prompt, and returns one result for each in their
  // order; all or none. Blocks. Safe to call from several threads.
  //
  // What may pass (a server is restarting or busy, a deadline, an item that failed for such a
  // reason) is tried again, on the other servers too, until give_up_after or max_item_attempts.
  //   CANCELLED            `cancelled` answered true; it is asked about twenty times a second
  //   FAILED_PRECONDITION  servers score with different weights: the digest changed
  //   otherwise            the last error, with the address and what was tried
  absl::StatusOr<std::vector<RewardResult>> Score(absl::Span<const Image> images,
                                                  absl::Span<const std::string> prompts,
                                                  const std::function<bool()>& cancelled = {});

 private:
  struct Server {
    std::string address;
    std::unique_ptr<reward::v1::RewardService::StubInterface> stub;
  };
  class Batch;

  explicit RewardClient(const RewardClientOptions& options) : options_(options) {}

  // One RPC; on an error `retry_after` gets the server's hint, if there is one.
  absl::Status Call(const Server& server, const reward::v1::ScoreRequest& request,
                    const std::function<bool()>& cancelled, absl::Time give_up,
                    reward::v1::ScoreResponse* response, absl::Duration* retry_after) const;
  absl::Status Pause(absl::Duration duration, const std::function<bool()>& cancelled) const;
  size_t CurrentServer() ABSL_LOCKS_EXCLUDED(mu_);
  // The next call goes to another server.
  void LeaveServer(size_t index) ABSL_LOCKS_EXCLUDED(mu_);
  // FAILED_PRECONDITION when it is not the digest of the first answer.
  absl::Status CheckDigest(const std::string& digest, const std::string& address)
      ABSL_LOCKS_EXCLUDED(mu_);

  const RewardClientOptions options_;
  std::vector<Server> servers_;

  absl::Mutex mu_;
  // Server of the next call: the one that answered last, or the one after that failed last.
  size_t current_server_ ABSL_GUARDED_BY(mu_) = 0;
  std::string digest_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ddpo
