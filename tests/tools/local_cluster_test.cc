#include "tools/up/local_cluster.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/end_times.h"
#include "common/base/fake_clock.h"
#include "common/base/files.h"
#include "tests/testing/temp_dir.h"

namespace ddpo {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

// Says that it listens, and runs until it is killed. The address file is the last argument.
constexpr char kServes[] =
    "for file; do :; done; echo host:1 > $file; while :; do sleep 0.01; done";

// A cluster whose programs are shell scripts, at a time that stands still.
class LocalClusterTest : public ::testing::Test {
 protected:
  LocalClusterTest() {
    std::filesystem::create_directories(dir_ / "run/logs");
    Program("ddpo-learner", kServes);
    Program("ddpo-reward-server", kServes);
    Program("ddpo-actor", kServes);
    cluster_config_.set_learner_ranks(1);
    cluster_config_.set_actors(1);
    cluster_config_.set_reward_servers(1);
    cluster_config_.set_threads_per_process(1);
    cluster_config_.set_listen_host("127.0.0.1");
  }

  void Program(const std::string& name, const std::string& script) {
    const std::string path = dir_ / name;
    std::ofstream(path) << "#!/bin/sh\n" << script << "\n";
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  }

  std::unique_ptr<LocalCluster> Make() {
    LocalCluster::Options options;
    *options.config.mutable_cluster() = cluster_config_;
    options.run_dir = dir_ / "run";
    options.program_dir = dir_.path();
    options.note = [this](const std::string& line) { notes_.push_back(line); };
    options.clock = &clock_;
    return std::make_unique<LocalCluster>(options);
  }

  // Ticks until `done` or an error; the bound only matters where a test fails.
  template <typename Done>
  absl::Status TickUntil(LocalCluster& cluster, Done done) {
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    while (!done()) {
      if (absl::Now() > deadline) return absl::DeadlineExceededError("nothing happened");
      absl::Status status = cluster.Tick();
      if (!status.ok()) return status;
      absl::SleepFor(absl::Milliseconds(1));
    }
    return absl::OkStatus();
  }

  // An entry of pids.json.
  nlohmann::json Process(const std::string& name) {
    const auto table = nlohmann::json::parse(ReadFile(dir_ / "run/pids.json").value_or("{}"));
    for (const auto& process : table.value("processes", nlohmann::json::array())) {
      if (process["name"] == name) return process;
    }
    return nlohmann::json::object();
  }
  bool Serves(const std::string& name) { return Process(name).value("address", "") == "host:1"; }
  std::string Log(const std::string& name) {
    return ReadFile(absl::StrCat(dir_ / "run/logs/", name, ".log")).value_or("");
  }
  // What the scripts wait for with `[ -e GATE ]`.
  std::string Gate() { return dir_ / "gate"; }
  void OpenGate() { std::ofstream(Gate()).flush(); }

  testing::TempDir dir_;
  config::v1::ClusterConfig cluster_config_;
  FakeClock clock_;
  std::vector<std::string> notes_;
};

// A learner that saves for as long as the gate is shut.
std::string SlowToStop(const std::string& gate) {
  return absl::StrCat("trap 'while [ ! -e ", gate, " ]; do sleep 0.01; done; echo saved; exit 75' ",
                      "TERM; ", kServes);
}

TEST_F(LocalClusterTest, ALearnerThatAPersonStopsHasAllTheTimeItNeedsToSave) {
  Program("ddpo-learner", SlowToStop(Gate()));
  const auto cluster = Make();
  ASSERT_TRUE(TickUntil(*cluster, [&] { return Serves("learner-0"); }).ok());
  int hours = 0;
  cluster->StopTraining(/*asked=*/true, [&] {
    clock_.Advance(absl::Hours(1));
    if (++hours == 3) OpenGate();
    return false;
  });
  EXPECT_EQ(Log("learner-0"), "saved\n");
  EXPECT_THAT(notes_, Not(Contains(HasSubstr("killing learner-0"))));
}

TEST_F(LocalClusterTest, ALearnerThatNobodyStoppedHasFiveMinutesToSave) {
  Program("ddpo-learner", SlowToStop(Gate()));
  const auto cluster = Make();
  ASSERT_TRUE(TickUntil(*cluster, [&] { return Serves("learner-0"); }).ok());
  const absl::Time start = clock_.Now();
  cluster->StopTraining(/*asked=*/false, [&] {
    if (clock_.Now() < start + absl::Minutes(4)) clock_.Advance(absl::Minutes(1));
    return false;
  });
  EXPECT_GE(clock_.Now(), start + absl::Minutes(5));
  EXPECT_THAT(notes_, Contains(HasSubstr("killing learner-0")));
}

TEST_F(LocalClusterTest, ARankThatFailsHasTheTimeToSaySo) {
  cluster_config_.set_learner_ranks(2);
  Program("ddpo-learner",
          absl::StrCat("case \"$*\" in *'--rank 0'*) echo started; while [ ! -e ", Gate(),
                       " ]; do sleep 0.01; done; echo the disk is full; exit 1;; esac; exit 3"));
  const auto cluster = Make();
  ASSERT_TRUE(TickUntil(*cluster, [&] { return !notes_.empty(); }).ok());
  EXPECT_THAT(notes_, Contains(HasSubstr("learner-1 ended with exit code 3")));
  clock_.Advance(kLearnerFarewell + kLearnerDrain);
  ASSERT_TRUE(cluster->Tick().ok());
  OpenGate();
  const absl::Status status = TickUntil(*cluster, [] { return false; });
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the disk is full"));
  EXPECT_EQ(Log("learner-0"), "started\nthe disk is full\n");
}

// As after a farewell of a learner that was killed before it could end.
TEST_F(LocalClusterTest, AnActorThatEndedIsStartedAgainWhileTheRunGoesOn) {
  Program("ddpo-actor", absl::StrCat("[ -e ", Gate(), " ] || exit 0; ", kServes));
  const auto cluster = Make();
  ASSERT_TRUE(TickUntil(*cluster, [&] {
                return Serves("learner-0") && Process("actor-0").value("pid", -1) == 0 &&
                       std::filesystem::exists(dir_ / "run/logs/actor-0.log");
              }).ok());
  OpenGate();
  clock_.Advance(absl::Minutes(1));
  EXPECT_TRUE(TickUntil(*cluster, [&] {
                return Process("actor-0").value("metrics_address", "") == "host:1";
              }).ok());
  EXPECT_THAT(notes_, Contains(HasSubstr("actor-0 had ended, and the run goes on")));
}

}  // namespace
}  // namespace ddpo
