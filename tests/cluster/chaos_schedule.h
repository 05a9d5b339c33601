#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "common/base/random.h"
#include "ddpo/cluster/v1/cluster.grpc.pb.h"
#include "tests/cluster/process_cluster.h"
#include "tests/testing/fault_proxy.h"
#include "tools/up/child_names.h"

namespace ddpo::testing {

// The faults of one chaos run, all drawn before it starts: whatever comes first in the run, the
// same seed asks for the same faults.
struct ChaosSchedule {
  static constexpr int kRanks = 2;
  static constexpr int kActors = 2;
  static constexpr int kEpochs = 5;
  // Starts of a process, from its first on, that may have a place to die at.
  static constexpr int kArmedStarts = 3;
  // Restarts of the learner, of those that find two checkpoints or more, before which the newest
  // may be torn.
  static constexpr int kTearingRestarts = 4;
  // Among the first so many deliveries to rank 0 one loses its response.
  static constexpr int kFirstDeliveries = 10;

  // A kill from outside: some time after so many epochs were trained, at the latest when the next
  // one is.
  struct Kill {
    std::string victim;
    int after_epochs = 0;
    absl::Duration later;
  };
  // A rank that kills itself at a place, as DDPO_KILL_AT takes it.
  struct RankDeath {
    int rank = 0;
    std::string place;
  };

  uint64_t seed = 0;
  std::vector<Kill> kills;                         // one after another
  std::vector<RankDeath> rank_deaths;              // by start of the learner
  std::vector<std::string> actor_deaths[kActors];  // by start of the actor; empty: none
  // The file of the newest checkpoint that loses its second half, by such restart; empty: none.
  std::vector<std::string> tears;
  std::map<std::string, FaultPlan> calls;  // by server

  std::string ToString() const;
};

namespace internal {

class Dice {
 public:
  explicit Dice(uint64_t seed) : generator_(DeriveSeed(seed, "chaos")) {}
  // 0 … bound−1.
  int Below(int bound) { return static_cast<int>(generator_() % static_cast<uint64_t>(bound)); }
  bool OneIn(int chances) { return Below(chances) == 0; }
  template <typename T>
  T Of(const std::vector<T>& choices) {
    return choices[Below(static_cast<int>(choices.size()))];
  }

 private:
  std::mt19937_64 generator_;
};

// Where a process may be told to kill itself, and how late at most.
struct Place {
  std::string name;
  int latest = 1;
};

inline std::string DrawPlace(Dice& dice, const std::vector<Place>& places) {
  const Place place = dice.Of(places);
  return absl::StrCat(place.name, ":", 1 + dice.Below(place.latest));
}

// One process of each kind while there is an epoch to spare, so that none can come too late, the
// first of another kind for each seed; then one of any, at any time.
inline std::vector<ChaosSchedule::Kill> DrawKills(Dice& dice, uint64_t seed) {
  const std::string actor = ActorName(dice.Below(ChaosSchedule::kActors));
  const std::string rank = ProcessCluster::RankName(dice.Below(ChaosSchedule::kRanks));
  std::vector<std::string> victims = {actor, rank, "reward"};
  std::rotate(victims.begin(), victims.begin() + static_cast<int>(seed % 3), victims.end());
  std::vector<int> epochs;
  for (size_t i = 0; i < victims.size(); ++i) {
    epochs.push_back(dice.Below(ChaosSchedule::kEpochs - 2));
  }
  std::sort(epochs.begin(), epochs.end());
  victims.push_back(dice.Of<std::string>({"actor-0", "actor-1", "reward", "learner", "learner-1"}));
  epochs.push_back(dice.Below(ChaosSchedule::kEpochs));
  std::vector<ChaosSchedule::Kill> kills;
  for (size_t i = 0; i < victims.size(); ++i) {
    kills.push_back({victims[i], epochs[i], absl::Milliseconds(dice.Below(600))});
  }
  std::stable_sort(kills.begin(), kills.end(),
                   [](const auto& a, const auto& b) { return a.after_epochs < b.after_epochs; });
  return kills;
}

inline bool LosesAnEarlyDelivery(const FaultPlan& plan) {
  const std::string method =
      absl::StrCat("/", cluster::v1::TrajectoryIngest::service_full_name(), "/Deliver");
  for (int call = 0; call < ChaosSchedule::kFirstDeliveries; ++call) {
    if (DecideFault(plan, method, call) == Fault::kResponseLost) return true;
  }
  return false;
}

}  // namespace internal

inline ChaosSchedule DrawChaosSchedule(uint64_t seed) {
  internal::Dice dice(seed);
  ChaosSchedule schedule;
  schedule.seed = seed;
  schedule.kills = internal::DrawKills(dice, seed);
  const std::vector<internal::Place> rank_places = {
      {"ingest.before_ack", 12},  {"ingest.after_ack", 12},        {"update.all_reduce", 6},
      {"checkpoint.file", 6},     {"checkpoint.before_rename", 3}, {"checkpoint.after_rename", 3},
      {"epoch.before_publish", 3}};
  for (int start = 0; start < ChaosSchedule::kArmedStarts; ++start) {
    const int rank = dice.Below(ChaosSchedule::kRanks);
    schedule.rank_deaths.push_back({rank, internal::DrawPlace(dice, rank_places)});
  }
  const std::vector<internal::Place> actor_places = {{"actor.before_delivery", 6},
                                                     {"actor.after_delivery", 6}};
  for (auto& deaths : schedule.actor_deaths) {
    for (int start = 0; start < ChaosSchedule::kArmedStarts; ++start) {
      deaths.push_back(dice.OneIn(2) ? internal::DrawPlace(dice, actor_places) : "");
    }
  }
  for (int restart = 0; restart < ChaosSchedule::kTearingRestarts; ++restart) {
    const std::string file =
        dice.Of<std::string>({"trainer.safetensors", "state.json", "MANIFEST.json"});
    schedule.tears.push_back(restart == 0 || dice.OneIn(2) ? file : "");
  }
  for (const char* server : {"learner", "learner-1", "reward"}) {
    FaultPlan& plan = schedule.calls[server];
    plan = {.fails_before = 0.04, .response_lost = 0.04, .delayed = 0.1};
    uint64_t tries = 0;
    do {
      plan.seed = DeriveSeed(seed, server, tries++);
    } while (server == std::string("learner") && !internal::LosesAnEarlyDelivery(plan));
  }
  return schedule;
}

inline std::string ChaosSchedule::ToString() const {
  const auto or_none = [](std::string* out, const std::string& value) {
    absl::StrAppend(out, value.empty() ? "-" : value);
  };
  std::string text = absl::StrCat("schedule ", seed, "\n  kills:");
  for (const Kill& kill : kills) {
    absl::StrAppend(&text, " ", kill.victim, " after ", kill.after_epochs, " epochs and ",
                    absl::FormatDuration(kill.later), ",");
  }
  absl::StrAppend(&text, "\n  deaths of ranks, by start:");
  for (const RankDeath& death : rank_deaths) {
    absl::StrAppend(&text, " ", ProcessCluster::RankName(death.rank), " at ", death.place, ",");
  }
  for (int i = 0; i < kActors; ++i) {
    absl::StrAppend(&text, "\n  deaths of ", ActorName(i),
                    ", by start: ", absl::StrJoin(actor_deaths[i], ", ", or_none));
  }
  absl::StrAppend(&text, "\n  torn, by restart with two checkpoints: ",
                  absl::StrJoin(tears, ", ", or_none), "\n  seeds of the calls' faults:");
  for (const auto& [server, plan] : calls) absl::StrAppend(&text, " ", server, " ", plan.seed, ",");
  return text;
}

}  // namespace ddpo::testing
