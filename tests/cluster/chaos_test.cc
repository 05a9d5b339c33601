// Real processes under seeded schedules of faults: kills of actors, reward server and learner
// ranks, at any moment and at the worst ones, calls that fail, responses that get lost, torn
// checkpoints. Each run ends with the bytes of the undisturbed one.
//
// DDPO_CHAOS_SCHEDULES says how many schedules (2), DDPO_CHAOS_FIRST which is the first (1).
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/random.h"
#include "tests/cluster/process_cluster.h"
#include "tests/cluster/sound_metrics.h"
#include "tests/testing/fault_proxy.h"

namespace ddpo {
namespace {

using testing::ExpectSoundMetrics;
using testing::FaultPlan;
using testing::FaultProxy;
using testing::ProcessCluster;

constexpr int kRanks = 2;
constexpr int kActors = 2;
constexpr int kEpochs = 5;
constexpr int kSamples = 12;

std::string Config() {
  return absl::StrCat("model: ", testing::SourcePath("assets/models/emoji-sd"), R"(
reward: jpeg_compressibility
prompts: {list: [a cat, a dog, a horse]}
run: {name: chaos, epochs: 5, seed: 11, save_every: 5}
cluster: {learner_ranks: 2, lease_seconds: 2, max_task_attempts: 1000}
sampling: {num_steps: 3, batch_size: 2, samples_per_epoch: 12}
training: {learning_rate: 3e-3, minibatch_size: 2, clip_range: 1e-3}
checkpoint: {every_epochs: 1, keep: 10}
)");
}

const std::string& Undisturbed() {
  static const std::string bytes = [] {
    ProcessCluster cluster(Config(), {}, {}, kRanks);
    cluster.StartActor("actor-0");
    for (int rank = 0; rank < kRanks; ++rank) {
      EXPECT_TRUE(cluster.Wait(ProcessCluster::RankName(rank)).ok());
    }
    return cluster.FinalLora();
  }();
  return bytes;
}

int FromEnvironment(const char* name, int otherwise) {
  const char* value = std::getenv(name);
  int number = 0;
  return value != nullptr && absl::SimpleAtoi(value, &number) ? number : otherwise;
}

// Draws that follow from the schedule's seed.
class Dice {
 public:
  explicit Dice(uint64_t seed) : generator_(DeriveSeed(seed, "chaos")) {}
  // 0 … bound−1.
  int Below(int bound) { return static_cast<int>(generator_() % static_cast<uint64_t>(bound)); }
  bool OneIn(int chances) { return Below(chances) == 0; }

 private:
  std::mt19937_64 generator_;
};

// Where a process may be told to kill itself, and how late at most.
struct KillPlace {
  const char* name;
  int latest;
};
constexpr KillPlace kRankPlaces[] = {
    {"ingest.before_ack", 12},  {"ingest.after_ack", 12},        {"update.all_reduce", 6},
    {"checkpoint.file", 6},     {"checkpoint.before_rename", 3}, {"checkpoint.after_rename", 3},
    {"epoch.before_publish", 3}};
constexpr KillPlace kActorPlaces[] = {{"actor.before_delivery", 6}, {"actor.after_delivery", 6}};

// One schedule: looks after the processes as a supervisor would, and does the damage.
class Chaos {
 public:
  explicit Chaos(uint64_t seed) : dice_(seed), cluster_(Config(), {}, {}, kRanks, /*start=*/false) {
    const FaultPlan faults{
        .seed = seed, .fails_before = 0.04, .response_lost = 0.04, .delayed = 0.1};
    for (const char* name : {"learner", "learner-1", "reward"}) {
      proxies_.push_back(std::make_unique<FaultProxy>(cluster_.Reserve(name), faults));
      cluster_.Route(name, proxies_.back()->address());
    }
    StartLearner();
    cluster_.StartRewardServer();
    for (int i = 0; i < kActors; ++i) StartActor(i);
    for (int i = 0; i < kOutsideKills; ++i) kills_at_.push_back(dice_.Below(kEpochs * kSamples));
    std::sort(kills_at_.begin(), kills_at_.end());
  }

  // Until the run is complete.
  void Run() {
    const absl::Time deadline = absl::Now() + testing::kPatience;
    while (!complete_) {
      ASSERT_LT(absl::Now(), deadline) << "the run does not come to its end";
      TendLearner();
      if (complete_ || ::testing::Test::HasFailure()) return;
      for (int i = 0; i < kActors; ++i) {
        if (cluster_.Poll(ActorName(i)).has_value()) StartActor(i);
      }
      if (cluster_.Poll("reward").has_value()) cluster_.StartRewardServer();
      KillFromOutside();
      absl::SleepFor(testing::kPoll);
    }
  }

  ProcessCluster& cluster() { return cluster_; }
  // What was done, for people.
  std::string Summary() const {
    int64_t faults = 0;
    for (const auto& proxy : proxies_) {
      for (const auto& [kind, count] : proxy->faults()) {
        if (kind != testing::Fault::kNone) faults += count;
      }
    }
    return absl::StrCat(learner_starts_, " starts of the learner, ", actor_starts_, " of actors, ",
                        outside_kills_, " kills from outside, ", torn_checkpoints_,
                        " torn checkpoints, ", faults, " faulty calls");
  }

 private:
  static constexpr int kOutsideKills = 3;
  static constexpr int kArmedStarts = 3;

  static std::string ActorName(int i) { return absl::StrCat("actor-", i); }

  // DDPO_KILL_AT for one of the places.
  template <size_t N>
  std::vector<std::string> Arm(const KillPlace (&places)[N]) {
    const KillPlace& place = places[dice_.Below(N)];
    return {absl::StrCat("DDPO_KILL_AT=", place.name, ":", 1 + dice_.Below(place.latest))};
  }

  void StartLearner() {
    // Each of the first starts has a rank that dies at a place of its own.
    const int doomed = dice_.Below(kRanks);
    for (int rank = 0; rank < kRanks; ++rank) {
      const bool armed = learner_starts_ < kArmedStarts && rank == doomed;
      cluster_.SetEnvironment(ProcessCluster::RankName(rank),
                              armed ? Arm(kRankPlaces) : std::vector<std::string>());
    }
    ++learner_starts_;
    cluster_.StartLearner();
  }

  void StartActor(int i) {
    const bool armed = actor_starts_ < 2 * kActors && dice_.OneIn(2);
    cluster_.SetEnvironment(ActorName(i), armed ? Arm(kActorPlaces) : std::vector<std::string>());
    ++actor_starts_;
    cluster_.StartActor(ActorName(i));
  }

  // Starts all ranks again once one has died and the others have noticed.
  void TendLearner() {
    bool ended = false;
    for (int rank = 0; rank < kRanks; ++rank) {
      ended |= cluster_.Poll(ProcessCluster::RankName(rank)).has_value();
    }
    if (!ended) return;
    complete_ = true;
    for (int rank = 0; rank < kRanks; ++rank) {
      const ExitStatus status = cluster_.Wait(ProcessCluster::RankName(rank));
      complete_ &= status.ok();
      // Killed, or told so by the loss of another: anything else is a fault of the learner.
      EXPECT_TRUE(status.ok() || status.signal == SIGKILL || status.code == 3) << status.ToString();
    }
    if (complete_) return;
    if (dice_.OneIn(2)) TearNewestCheckpoint();
    StartLearner();
  }

  void KillFromOutside() {
    int64_t trained = static_cast<int64_t>(cluster_.Metrics().size()) * kSamples;
    if (kills_at_.empty() || trained < kills_at_.front()) return;
    kills_at_.erase(kills_at_.begin());
    ++outside_kills_;
    const char* const victims[] = {"actor-0", "actor-1", "reward", "learner", "learner-1"};
    cluster_.Kill(victims[dice_.Below(5)]);
  }

  // As a disk that lost part of a file. The run's only checkpoint is left alone: without any that
  // is sound a learner refuses to start.
  void TearNewestCheckpoint() {
    std::vector<std::string> checkpoints;
    std::error_code error;
    for (const auto& entry :
         std::filesystem::directory_iterator(cluster_.dir() / "run/checkpoints", error)) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with("epoch_")) checkpoints.push_back(entry.path().string());
    }
    std::sort(checkpoints.begin(), checkpoints.end());
    if (checkpoints.size() < 2) return;
    const char* const files[] = {"trainer.safetensors", "state.json", "MANIFEST.json"};
    const std::string file = absl::StrCat(checkpoints.back(), "/", files[dice_.Below(3)]);
    std::filesystem::resize_file(file, std::filesystem::file_size(file) / 2);
    ++torn_checkpoints_;
  }

  Dice dice_;
  ProcessCluster cluster_;
  std::vector<std::unique_ptr<FaultProxy>> proxies_;
  std::vector<int> kills_at_;  // samples trained
  int learner_starts_ = 0;
  int actor_starts_ = 0;
  int outside_kills_ = 0;
  int torn_checkpoints_ = 0;
  bool complete_ = false;
};

TEST(ChaosTest, WhateverHappensTheFinalLoraHasTheUndisturbedRunsBytes) {
  const int first = FromEnvironment("DDPO_CHAOS_FIRST", 1);
  const int schedules = FromEnvironment("DDPO_CHAOS_SCHEDULES", 2);
  for (int seed = first; seed < first + schedules; ++seed) {
    SCOPED_TRACE(absl::StrCat("schedule ", seed));
    Chaos chaos(static_cast<uint64_t>(seed));
    chaos.Run();
    std::cout << "schedule " << seed << ": " << chaos.Summary() << std::endl;
    EXPECT_EQ(chaos.cluster().FinalLora(), Undisturbed());
    ExpectSoundMetrics(chaos.cluster(), kEpochs, kSamples);
    if (::testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace ddpo
