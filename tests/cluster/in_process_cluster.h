#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "actor/learner_client.h"
#include "actor/policy_replica.h"
#include "actor/rollout_loop.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/metrics/actor_metrics.h"
#include "common/rpc/retry.h"
#include "learner/collective/single_rank.h"
#include "learner/learner.h"
#include "learner/run_files.h"
#include "tests/testing/fake_training.h"
#include "tests/testing/thread_ranks.h"

namespace ddpo::testing {

// A run of a few small epochs; `overrides` are KEY=VALUE.
inline config::v1::Config SmallRun(const std::vector<std::string>& overrides = {}) {
  constexpr char kYaml[] = R"(
model: none
prompts: {list: [a cat, a dog, a horse]}
run: {name: test, epochs: 4, seed: 7, save_every: 2}
cluster: {lease_seconds: 5}
sampling: {num_steps: 2, batch_size: 2, samples_per_epoch: 8}
training: {minibatch_size: 2, stat_buffer_size: 4, stat_min_count: 2}
checkpoint: {every_epochs: 1, keep: 10}
)";
  auto config = ParseConfig(kYaml, "test", overrides);
  EXPECT_TRUE(config.ok()) << config.status();
  return *config;
}

// The generation of the next start of a run.
inline uint64_t CountStart(const std::string& run_dir) {
  RunFiles files(run_dir, /*full_finetuning=*/false);
  EXPECT_TRUE(files.Prepare().ok());
  return *files.NextGeneration();
}

// A learner with a fake trainer that runs on a thread of its own.
class InProcessLearner {
 public:
  // The only rank of its group.
  InProcessLearner(const config::v1::Config& config, const std::string& run_dir,
                   FileSystem* file_system = FileSystem::Real())
      : InProcessLearner(config, run_dir, file_system,
                         std::make_unique<SingleRank>(CountStart(run_dir))) {}
  // One rank. All ranks have to be constructed at the same time.
  InProcessLearner(const config::v1::Config& config, const std::string& run_dir,
                   Collective* collective, FileSystem* file_system = FileSystem::Real())
      : trainer_(collective) {
    LearnerOptions options;
    options.config = config;
    options.run_dir = run_dir;
    options.file_system = file_system;
    options.model_digest = "model";
    // Ending a metrics server takes two seconds.
    options.metrics_listen.clear();
    options.drain = absl::Milliseconds(200);
    auto learner = Learner::Start(options, &trainer_, collective);
    start_status_ = learner.status();
    if (learner.ok()) learner_ = *std::move(learner);
  }
  ~InProcessLearner() {
    Stop();
    if (thread_.joinable()) thread_.join();
  }

  const absl::Status& start_status() const { return start_status_; }
  HashingTrainer& trainer() { return trainer_; }
  Learner& operator*() { return *learner_; }
  Learner* operator->() { return learner_.get(); }

  void Start() {
    thread_ = std::thread([this] { status_ = learner_->Run([this] { return stopping_.load(); }); });
  }
  void Stop() { stopping_ = true; }
  absl::Status Join() {
    thread_.join();
    return status_;
  }
  absl::Status RunToTheEnd() {
    Start();
    return Join();
  }

 private:
  InProcessLearner(const config::v1::Config& config, const std::string& run_dir,
                   FileSystem* file_system, std::unique_ptr<SingleRank> single_rank)
      : InProcessLearner(config, run_dir, single_rank.get(), file_system) {
    single_rank_ = std::move(single_rank);
  }

  HashingTrainer trainer_;
  std::unique_ptr<SingleRank> single_rank_;
  std::unique_ptr<Learner> learner_;
  absl::Status start_status_;
  absl::Status status_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

// All ranks of a learner, in threads of this process.
class InProcessRanks {
 public:
  InProcessRanks(const config::v1::Config& config, const std::string& run_dir)
      : group_(config.cluster().learner_ranks(), CountStart(run_dir)), ranks_(group_.size()) {
    group_.Run([&](Collective& collective) {
      ranks_[collective.rank()] = std::make_unique<InProcessLearner>(config, run_dir, &collective);
    });
    for (const auto& rank : ranks_) EXPECT_TRUE(rank->start_status().ok()) << rank->start_status();
  }

  InProcessLearner& operator[](int rank) { return *ranks_[rank]; }
  const std::string& address() { return (*ranks_[0])->address(); }

  void Start() {
    for (auto& rank : ranks_) rank->Start();
  }
  // How each rank ended.
  std::vector<absl::Status> Join() {
    std::vector<absl::Status> statuses;
    for (auto& rank : ranks_) statuses.push_back(rank->Join());
    return statuses;
  }

 private:
  ThreadRanks group_;
  std::vector<std::unique_ptr<InProcessLearner>> ranks_;
};

// An actor with a fake sampler that runs on threads of its own.
class InProcessActor {
 public:
  InProcessActor(const std::string& learner, const std::string& actor_id,
                 RewardFunction score = HashReward)
      : metrics_(registry_) {
    static std::atomic<uint64_t> incarnation{1};
    LearnerClientOptions client_options;
    client_options.address = learner;
    client_options.actor_id = actor_id;
    client_options.incarnation = incarnation++;
    client_ = *LearnerClient::Create(client_options);
    RolloutLoopOptions options;
    options.actor_id = actor_id;
    options.model_digest = "model";
    options.lease_wait = absl::Seconds(1);
    options.give_up_after = absl::Seconds(10);
    options.first_pause = absl::Milliseconds(1);
    options.max_pause = absl::Milliseconds(5);
    // As ddpo-actor does: a connection may fail, and the next one not.
    RetryOptions retry;
    retry.give_up_after = options.give_up_after;
    const absl::Status registered = CallWithRetry("registering", retry, [&](absl::Time) {
      const auto answer = client_->Register("model");
      if (answer.ok()) options.config = answer->config();
      return answer.status();
    });
    EXPECT_TRUE(registered.ok()) << registered;
    PolicyReplicaOptions replica_options;
    replica_options.first_pause = absl::Milliseconds(1);
    replica_options.max_pause = absl::Milliseconds(5);
    replica_options.patience = absl::Milliseconds(200);
    policies_ = std::make_unique<PolicyReplica>(client_.get(), &metrics_, replica_options);
    policies_->Reset();
    RolloutParts parts;
    parts.learner = client_.get();
    parts.policies = policies_.get();
    parts.sampler = &sampler_;
    parts.score = std::move(score);
    parts.metrics = &metrics_;
    loop_ = std::make_unique<RolloutLoop>(options, parts);
    thread_ = std::thread([this] { status_ = loop_->Run(); });
  }
  ~InProcessActor() {
    if (thread_.joinable()) {
      loop_->Abort();
      thread_.join();
    }
    client_->Abort();
  }

  // Waits until the actor ends by itself.
  absl::Status Join() {
    thread_.join();
    return status_;
  }
  void Stop() { loop_->Stop(); }
  // Ends the actor without a word, as far as the learner can see.
  void Kill() {
    loop_->Abort();
    thread_.join();
  }
  ActorMetrics& metrics() { return metrics_; }
  LearnerClient& client() { return *client_; }

 private:
  prometheus::Registry registry_;
  ActorMetrics metrics_;
  HashingSampler sampler_;
  std::unique_ptr<LearnerClient> client_;
  std::unique_ptr<PolicyReplica> policies_;
  std::unique_ptr<RolloutLoop> loop_;
  absl::Status status_;
  std::thread thread_;
};

}  // namespace ddpo::testing
