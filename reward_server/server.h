#pragma once

#include <prometheus/registry.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/metrics/metrics_server.h"
#include "common/metrics/reward_server_metrics.h"
#include "common/rpc/server.h"
#include "ddpo/config/v1/reward_server.pb.h"
#include "reward_server/jobs.h"
#include "reward_server/jobs_service.h"
#include "reward_server/jobs_store.h"
#include "reward_server/scorer.h"
#include "reward_server/scorer_pool.h"
#include "reward_server/service.h"

namespace ddpo {

// Tells glibc to keep freed image buffers for the next call. By default it gives blocks of that
// size back to the system at once, and the page faults of getting them again cost about as much
// time as encoding a JPEG. Call first in main.
void KeepFreedImageBuffers();

// A whole reward server: scorers, services, metrics.
class RewardServer {
 public:
  // Everything serves when this returns.
  static absl::StatusOr<std::unique_ptr<RewardServer>> Start(
      const config::v1::RewardServerProgram& config, const ScorerRegistry& registry);
  // Aborts.
  ~RewardServer();

  // HOST:PORT.
  const std::string& address() const { return rpc_->address(); }

  // Says NOT_SERVING, takes no new work, answers what was accepted, ends open streams; jobs stop
  // between two items. What still waits for a scorer at the deadline is dropped. Blocks.
  void Drain(absl::Duration deadline);

  // Drops all that waits. May be called while another thread is in Drain, which then ends soon.
  void Abort();

 private:
  RewardServer() = default;

  absl::Status OpenJobs(const config::v1::RewardServerProgram& config);

  // Destroyed in reverse: the servers first, then what they use.
  std::shared_ptr<prometheus::Registry> registry_;
  std::unique_ptr<RewardServerMetrics> metrics_;
  std::unique_ptr<ScorerPool> pool_;
  std::unique_ptr<JobStore> job_store_;
  std::unique_ptr<JobRunner> job_runner_;
  std::unique_ptr<JobsService> jobs_service_;
  std::unique_ptr<RewardServiceImpl> service_;
  std::unique_ptr<MetricsServer> metrics_server_;
  std::unique_ptr<RpcServer> rpc_;
};

}  // namespace ddpo
