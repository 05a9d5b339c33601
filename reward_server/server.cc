#include "reward_server/server.h"

#include <malloc.h>

#include <algorithm>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "common/base/files.h"
#include "common/base/logging.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

// Time for answers that are computed to reach their callers. Not longer: gRPC also waits for idle
// connections, which a client that only makes blocking calls closes seconds later.
constexpr absl::Duration kLastWrites = absl::Milliseconds(500);

// Blocks up to this size come from the heap, which keeps as much free.
constexpr int kKeptBytes = 256 << 20;

}  // namespace

void KeepFreedImageBuffers() {
  mallopt(M_MMAP_THRESHOLD, kKeptBytes);
  mallopt(M_TRIM_THRESHOLD, kKeptBytes);
}

absl::StatusOr<std::unique_ptr<RewardServer>> RewardServer::Start(
    const config::v1::RewardServerProgram& config, const ScorerRegistry& registry) {
  const config::v1::RewardServerConfig& limits = config.limits();
  auto server = std::unique_ptr<RewardServer>(new RewardServer());
  server->registry_ = std::make_shared<prometheus::Registry>();
  const std::vector<std::string> scorers(config.scorers().begin(), config.scorers().end());
  server->metrics_ = std::make_unique<RewardServerMetrics>(*server->registry_, scorers);

  BatcherOptions batching;
  batching.max_batch_size = limits.max_batch_size();
  batching.max_batch_delay = absl::Milliseconds(limits.max_batch_delay_ms());
  batching.max_queue_items = limits.max_queue_items();
  batching.max_queue_bytes = limits.max_queue_bytes();
  batching.preparing_threads = limits.decoding_threads();
  batching.scoring_threads = limits.scoring_threads();
  DDPO_ASSIGN_OR_RETURN(server->pool_,
                        ScorerPool::Create(registry, scorers, batching, server->metrics_.get()));

  RewardServiceOptions service;
  service.max_image_pixels = limits.max_image_pixels();
  service.callers_have_tokens = !config.security().tokens_file().empty();
  service.metrics = server->metrics_.get();
  server->service_ = std::make_unique<RewardServiceImpl>(server->pool_.get(), service);
  std::vector<grpc::Service*> services = {server->service_.get()};
  if (!config.jobs().database().empty()) {
    DDPO_RETURN_IF_ERROR(server->OpenJobs(config));
    services.push_back(server->jobs_service_.get());
  }

  if (!config.metrics_listen().empty()) {
    MetricsServerOptions metrics;
    metrics.listen = config.metrics_listen();
    metrics.allow_plain_text_anywhere = config.allow_plain_text_anywhere();
    metrics.process = "ddpo-reward-server";
    DDPO_ASSIGN_OR_RETURN(server->metrics_server_,
                          MetricsServer::Start(metrics, server->registry_));
    LogInfo("metrics at http://", server->metrics_server_->address(), "/metrics");
  }

  RpcServerOptions rpc;
  rpc.listen = config.listen();
  rpc.allow_plain_text_anywhere = config.allow_plain_text_anywhere();
  rpc.max_message_bytes = limits.max_message_bytes();
  rpc.tls = config.security().tls();
  rpc.tokens_file = config.security().tokens_file();
  rpc.health_listen = config.health_listen();
  DDPO_ASSIGN_OR_RETURN(server->rpc_, RpcServer::Start(rpc, services));
  if (!config.address_file().empty()) {
    std::string addresses = server->address() + "\n";
    if (server->metrics_server_ != nullptr) addresses += server->metrics_server_->address() + "\n";
    DDPO_RETURN_IF_ERROR(WriteFileAtomically(config.address_file(), addresses));
  }
  return server;
}

absl::Status RewardServer::OpenJobs(const config::v1::RewardServerProgram& config) {
  const config::v1::RewardJobsConfig& jobs = config.jobs();
  JobStoreOptions store;
  store.max_bytes = jobs.max_bytes();
  store.max_jobs = jobs.max_jobs();
  DDPO_ASSIGN_OR_RETURN(job_store_, JobStore::Open(jobs.database(), store));
  JobRunnerOptions runner;
  runner.workers = jobs.workers();
  // Half of the queue stays for callers who wait for their answer.
  runner.items_at_a_time =
      std::min(runner.items_at_a_time, std::max(1, config.limits().max_queue_items() / 2));
  runner.bytes_at_a_time = std::min(runner.bytes_at_a_time, config.limits().max_queue_bytes() / 2);
  runner.max_image_pixels = config.limits().max_image_pixels();
  runner.max_age = absl::Hours(jobs.max_age_hours());
  job_runner_ = std::make_unique<JobRunner>(job_store_.get(), pool_.get(), runner);
  jobs_service_ = std::make_unique<JobsService>(job_store_.get(), job_runner_.get(), pool_.get(),
                                                JobsServiceOptions());
  return job_runner_->Start();
}

RewardServer::~RewardServer() {
  if (job_runner_ != nullptr) job_runner_->Stop();
  Abort();
}

void RewardServer::Drain(absl::Duration deadline) {
  rpc_->SetNotServing();
  service_->Drain();
  if (job_runner_ != nullptr) job_runner_->Stop();
  absl::Notification stopped;
  std::thread watchdog([&] {
    if (!stopped.WaitForNotificationWithTimeout(deadline)) pool_->Abort();
  });
  pool_->Stop();
  stopped.Notify();
  watchdog.join();
  rpc_->Drain(kLastWrites);
}

void RewardServer::Abort() {
  if (service_ != nullptr) service_->Drain();
  if (pool_ != nullptr) pool_->Abort();
}

}  // namespace ddpo
