// Real processes under seeded schedules of faults: kills of actors, reward server and learner
// ranks, at any moment and at the worst ones, calls that fail, responses that get lost, torn
// checkpoints. Each run ends with the bytes of the undisturbed one.
//
// DDPO_CHAOS_SCHEDULES says how many schedules (2), DDPO_CHAOS_FIRST which is the first (1). Twenty
// and more have to show every kind of fault.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/cluster/chaos_schedule.h"
#include "tests/cluster/process_cluster.h"
#include "tests/cluster/sound_metrics.h"
#include "tests/testing/fault_proxy.h"
#include "tools/up/child_names.h"

namespace ddpo {
namespace {

using testing::ChaosSchedule;
using testing::DrawChaosSchedule;
using ::testing::ElementsAre;
using testing::ExpectSoundMetrics;
using testing::Fault;
using testing::FaultProxy;
using testing::ProcessCluster;

constexpr int kRanks = ChaosSchedule::kRanks;
constexpr int kActors = ChaosSchedule::kActors;
constexpr int kEpochs = ChaosSchedule::kEpochs;
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

// How often what happened.
using Counts = std::map<std::string, int64_t>;

// Every schedule has these.
const char* const kAlways[] = {"actors killed", "learner ranks killed", "reward servers killed"};
// These need luck.
const char* const kOverMany[] = {"actors dead at a place", "learner ranks dead at a place",
                                 "responses lost",         "calls failed",
                                 "calls delayed",          "checkpoints torn"};

std::string ToString(const Counts& counts) {
  return absl::StrJoin(counts, ", ", [](std::string* out, const auto& entry) {
    absl::StrAppend(out, entry.second, " ", entry.first);
  });
}

// One run: looks after the processes as a supervisor would, and does the damage.
class Chaos {
 public:
  explicit Chaos(const ChaosSchedule& schedule)
      : schedule_(schedule), cluster_(Config(), {}, {}, kRanks, /*start=*/false) {
    for (const auto& [server, plan] : schedule_.calls) {
      proxies_.push_back(std::make_unique<FaultProxy>(cluster_.Reserve(server), plan));
      cluster_.Route(server, proxies_.back()->address());
    }
    StartLearner();
    cluster_.StartRewardServer();
    for (int i = 0; i < kActors; ++i) StartActor(i);
  }

  // Until the run is complete.
  void Run() {
    const absl::Time deadline = absl::Now() + testing::kPatience;
    while (!complete_) {
      ASSERT_LT(absl::Now(), deadline) << "the run does not come to its end";
      TendLearner();
      if (complete_ || ::testing::Test::HasFailure()) return;
      for (int i = 0; i < kActors; ++i) {
        const auto ended = cluster_.Poll(ActorName(i));
        if (!ended.has_value()) continue;
        CountEnd("actors", ActorName(i), *ended);
        StartActor(i);
      }
      if (const auto ended = cluster_.Poll("reward"); ended.has_value()) {
        CountEnd("reward servers", "reward", *ended);
        cluster_.StartRewardServer();
      }
      KillFromOutside();
      absl::SleepFor(testing::kPoll);
    }
  }

  ProcessCluster& cluster() { return cluster_; }

  // What really happened.
  Counts Happened() const {
    Counts counts = counts_;
    for (const auto& proxy : proxies_) {
      std::map<Fault, int64_t> faults = proxy->faults();
      counts["calls failed"] += faults[Fault::kFailsBefore];
      counts["responses lost"] += faults[Fault::kResponseLost];
      counts["calls delayed"] += faults[Fault::kDelayed];
    }
    return counts;
  }

 private:
  static std::vector<std::string> KillAt(const std::string& place) {
    if (place.empty()) return {};
    return {absl::StrCat("DDPO_KILL_AT=", place)};
  }

  void StartLearner() {
    for (int rank = 0; rank < kRanks; ++rank) {
      const bool armed = learner_starts_ < schedule_.rank_deaths.size() &&
                         schedule_.rank_deaths[learner_starts_].rank == rank;
      cluster_.SetEnvironment(ProcessCluster::RankName(rank),
                              KillAt(armed ? schedule_.rank_deaths[learner_starts_].place : ""));
    }
    ++learner_starts_;
    cluster_.StartLearner();
  }

  void StartActor(int i) {
    const std::vector<std::string>& deaths = schedule_.actor_deaths[i];
    const size_t start = actor_starts_[i]++;
    cluster_.SetEnvironment(ActorName(i), KillAt(start < deaths.size() ? deaths[start] : ""));
    cluster_.StartActor(ActorName(i));
  }

  // A process of that kind has ended, by a kill, or by itself because of another one's end; any
  // other signal is a fault of its own.
  void CountEnd(const std::string& kind, const std::string& name, const ExitStatus& status) {
    const bool from_outside = killed_.erase(name) > 0;
    EXPECT_TRUE(status.signal == 0 || status.signal == SIGKILL)
        << name << ": " << status.ToString();
    if (status.signal != SIGKILL) return;
    ++counts_[absl::StrCat(kind, from_outside ? " killed" : " dead at a place")];
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
      const std::string name = ProcessCluster::RankName(rank);
      const ExitStatus status = cluster_.Wait(name);
      complete_ &= status.ok();
      // Killed, or told so by the loss of another: anything else is a fault of the learner.
      EXPECT_TRUE(status.ok() || status.signal == SIGKILL || status.code == 3) << status.ToString();
      CountEnd("learner ranks", name, status);
    }
    if (complete_) return;
    TearNewestCheckpoint();
    StartLearner();
  }

  void KillFromOutside() {
    if (kills_ == schedule_.kills.size()) return;
    const ChaosSchedule::Kill& kill = schedule_.kills[kills_];
    const auto epochs = static_cast<int>(cluster_.Metrics().size());
    if (epochs < kill.after_epochs) return;
    if (!kill_at_.has_value()) kill_at_ = absl::Now() + kill.later;
    if (absl::Now() < *kill_at_ && epochs == kill.after_epochs) return;
    // What has just ended for another reason is killed once it is there again.
    if (cluster_.Poll(kill.victim).has_value()) return;
    killed_.insert(kill.victim);
    cluster_.Kill(kill.victim);
    kill_at_.reset();
    ++kills_;
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
    if (checkpoints.size() < 2 || tears_ == schedule_.tears.size()) return;
    const std::string file = schedule_.tears[tears_++];
    if (file.empty()) return;
    const std::string path = absl::StrCat(checkpoints.back(), "/", file);
    std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
    ++counts_["checkpoints torn"];
  }

  const ChaosSchedule schedule_;
  ProcessCluster cluster_;
  std::vector<std::unique_ptr<FaultProxy>> proxies_;
  size_t learner_starts_ = 0;
  size_t actor_starts_[kActors] = {};
  size_t kills_ = 0;
  size_t tears_ = 0;
  std::optional<absl::Time> kill_at_;  // the next one, once its epochs are trained
  std::set<std::string> killed_;       // from outside, and not started again yet
  Counts counts_;
  bool complete_ = false;
};

TEST(ChaosScheduleTest, FollowsFromItsSeed) {
  std::set<std::string> different;
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    const std::string text = DrawChaosSchedule(seed).ToString();
    EXPECT_EQ(DrawChaosSchedule(seed).ToString(), text);
    different.insert(text.substr(text.find('\n')));
  }
  EXPECT_EQ(different.size(), 50);
}

TEST(ChaosScheduleTest, KillsEveryKindOfProcessBeforeTheLastEpochButOne) {
  std::set<std::string> first;
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    const ChaosSchedule schedule = DrawChaosSchedule(seed);
    std::set<std::string> kinds;
    for (const ChaosSchedule::Kill& kill : schedule.kills) {
      if (kill.after_epochs > kEpochs - 3) continue;
      kinds.insert(kill.victim.substr(0, kill.victim.find('-')));
      if (kinds.size() == 1) first.insert(*kinds.begin());
    }
    EXPECT_THAT(kinds, ElementsAre("actor", "learner", "reward")) << schedule.ToString();
  }
  EXPECT_THAT(first, ElementsAre("actor", "learner", "reward"));
}

TEST(ChaosTest, WhateverHappensTheFinalLoraHasTheUndisturbedRunsBytes) {
  const int first = FromEnvironment("DDPO_CHAOS_FIRST", 1);
  const int schedules = FromEnvironment("DDPO_CHAOS_SCHEDULES", 2);
  Counts total;
  for (int seed = first; seed < first + schedules; ++seed) {
    SCOPED_TRACE(absl::StrCat("schedule ", seed));
    const ChaosSchedule schedule = DrawChaosSchedule(static_cast<uint64_t>(seed));
    std::cout << schedule.ToString() << std::endl;
    Chaos chaos(schedule);
    chaos.Run();
    Counts happened = chaos.Happened();
    std::cout << "  happened: " << ToString(happened) << std::endl;
    EXPECT_EQ(chaos.cluster().FinalLora(), Undisturbed());
    ExpectSoundMetrics(chaos.cluster(), kEpochs, kSamples);
    for (const char* kind : kAlways) EXPECT_GT(happened[kind], 0) << kind;
    for (const auto& [kind, count] : happened) total[kind] += count;
    if (::testing::Test::HasFailure()) return;
  }
  std::cout << "over " << schedules << " schedules: " << ToString(total) << std::endl;
  if (schedules < 20) return;
  for (const char* kind : kOverMany) EXPECT_GT(total[kind], 0) << kind;
}

}  // namespace
}  // namespace ddpo
