#pragma once

#include <gtest/gtest.h>

#include <csignal>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/base/files.h"
#include "common/base/free_port.h"
#include "common/base/subprocess.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_dir.h"

namespace ddpo::testing {

// Longest time for anything here; a machine that is busy with other tests is slow.
inline constexpr absl::Duration kPatience = absl::Minutes(4);
// How often a test looks for what another process does.
inline constexpr absl::Duration kPoll = absl::Milliseconds(5);

// A real cluster: the learner's ranks, one reward server, actors, each a process, in a folder of
// its own. Rank 0 is called `learner`, the others are `learner-1` and so on.
class ProcessCluster {
 public:
  // Further flags by the kind of process: learner, reward, actor. {} in them stands for the
  // cluster's folder.
  using Flags = std::map<std::string, std::vector<std::string>>;

  // `prepare` gets the folder first. Without `start` nothing runs yet.
  explicit ProcessCluster(const std::string& config_yaml, Flags flags = {},
                          const std::function<void(const TempDir&)>& prepare = {}, int ranks = 1,
                          bool start = true)
      : flags_(std::move(flags)), ranks_(ranks) {
    if (prepare) prepare(dir_);
    EXPECT_TRUE(WriteFileAtomically(dir_ / "config.yaml", config_yaml).ok());
    if (!start) return;
    StartLearner();
    StartRewardServer();
  }
  ~ProcessCluster() {
    if (!::testing::Test::HasFailure()) return;
    for (const auto& [name, process] : processes_) {
      ADD_FAILURE() << name << " wrote:\n" << ReadFile(dir_ / (name + ".log")).value_or("nothing");
    }
  }

  // All ranks.
  void StartLearner() {
    const std::string store = absl::StrCat("127.0.0.1:", *FreePort());
    for (int rank = 0; rank < ranks_; ++rank) StartRank(rank, store);
    for (int rank = 0; rank < ranks_; ++rank) WaitForAddress(RankName(rank));
  }
  // One of the learner's ranks, which meet in the store at this address.
  void StartRank(int rank, const std::string& store) {
    const std::string name = RankName(rank);
    Start(name, WithFlags("learner", {"ddpo-learner", "--config", dir_ / "config.yaml", "--run-dir",
                                      dir_ / "run", "--listen", Listen(name), "--address-file",
                                      dir_ / (name + ".address"), "--rank", absl::StrCat(rank),
                                      "--store", store, "--advertise", Address(name)}));
  }
  // The address that a process, which is not started yet, will listen on.
  std::string Reserve(const std::string& name) {
    return addresses_[name] = absl::StrCat("127.0.0.1:", *FreePort());
  }
  // From now on others are told that the process is there.
  void Route(const std::string& name, const std::string& address) { routes_[name] = address; }
  // NAME=VALUE for the process's next starts.
  void SetEnvironment(const std::string& name, std::vector<std::string> environment) {
    environment_[name] = std::move(environment);
  }
  static std::string RankName(int rank) {
    return rank == 0 ? "learner" : absl::StrCat("learner-", rank);
  }
  void StartRewardServer() {
    Start("reward", WithFlags("reward", {"ddpo-reward-server", "--scorers", "jpeg_compressibility",
                                         "--listen", Listen("reward"), "--address-file",
                                         dir_ / "reward.address"}));
    WaitForAddress("reward");
  }
  // With the base model that the configuration names, or another.
  void StartActor(const std::string& name, const std::string& model = "") {
    std::vector<std::string> argv = {"ddpo-actor",     "--actor-id",       name,
                                     "--learner",      Address("learner"), "--reward",
                                     Address("reward")};
    if (!model.empty()) argv.insert(argv.end(), {"--model", model});
    Start(name, WithFlags("actor", std::move(argv)));
  }

  // SIGKILL, and waits for its end.
  void Kill(const std::string& name) {
    processes_.at(name)->Kill(SIGKILL);
    EXPECT_TRUE(processes_.at(name)->Wait(kPatience).has_value());
  }
  // How it ended, if it has.
  std::optional<ExitStatus> Poll(const std::string& name) { return processes_.at(name)->Poll(); }
  void Signal(const std::string& name, int signal) { processes_.at(name)->Kill(signal); }
  ExitStatus Wait(const std::string& name) {
    const auto status = processes_.at(name)->Wait(kPatience);
    EXPECT_TRUE(status.has_value()) << name << " did not end";
    return status.value_or(ExitStatus{.code = -1, .signal = 0});
  }

  // Waits until the log of a process holds the text that many times.
  void WaitForLog(const std::string& name, const std::string& text, int times = 1) {
    WaitUntil(absl::StrCat(name, " to log ", text), [&] {
      const std::string log = Log(name);
      int count = 0;
      for (size_t at = log.find(text); at != std::string::npos; at = log.find(text, at + 1)) {
        ++count;
      }
      return count >= times;
    });
  }
  const TempDir& dir() const { return dir_; }
  std::string Log(const std::string& name) { return ReadFile(dir_ / (name + ".log")).value_or(""); }
  // Lines of metrics.jsonl.
  std::vector<std::string> Metrics() {
    return absl::StrSplit(ReadFile(dir_ / "run/metrics.jsonl").value_or(""), '\n',
                          absl::SkipEmpty());
  }
  void WaitForEpochs(size_t epochs) {
    WaitUntil(absl::StrCat(epochs, " epochs"), [&] { return Metrics().size() >= epochs; });
  }
  std::string FinalLora() {
    const auto bytes = ReadFile(dir_ / "run/lora/final.safetensors");
    EXPECT_TRUE(bytes.ok()) << bytes.status();
    return bytes.value_or("");
  }

 private:
  std::vector<std::string> WithFlags(const std::string& kind, std::vector<std::string> argv) {
    for (const std::string& flag : flags_[kind]) {
      argv.push_back(absl::StrReplaceAll(flag, {{"{}", dir_.path()}}));
    }
    return argv;
  }
  template <typename Condition>
  void WaitUntil(const std::string& what, const Condition& condition) {
    const absl::Time deadline = absl::Now() + kPatience;
    while (!condition()) {
      ASSERT_LT(absl::Now(), deadline) << "waited for " << what;
      absl::SleepFor(kPoll);
    }
  }
  void Start(const std::string& name, std::vector<std::string> argv) {
    argv[0] = ProgramPath(argv[0]);
    std::vector<std::string> environment = environment_[name];
    environment.push_back("OMP_NUM_THREADS=1");
    auto process = Subprocess::Start({.argv = std::move(argv),
                                      .log_file = dir_ / (name + ".log"),
                                      .environment = std::move(environment)});
    ASSERT_TRUE(process.ok()) << process.status();
    processes_[name] = *std::move(process);
  }
  // The same at each start, so that clients find a process again.
  std::string Listen(const std::string& name) {
    return addresses_.contains(name) ? addresses_[name] : Reserve(name);
  }
  // Where others find it; empty where it says so itself.
  std::string Address(const std::string& name) {
    const auto route = routes_.find(name);
    return route != routes_.end() ? route->second : addresses_[name];
  }
  void WaitForAddress(const std::string& name) {
    const std::string path = dir_ / (name + ".address");
    WaitUntil(absl::StrCat("the address of ", name),
              [&] { return FileSystem::Real()->Exists(path) || processes_[name]->Poll(); });
    const std::vector<std::string> lines =
        absl::StrSplit(ReadFile(path).value_or(""), '\n', absl::SkipEmpty());
    ASSERT_FALSE(lines.empty()) << name << " did not start: " << Log(name);
    addresses_[name] = lines[0];
    ASSERT_TRUE(FileSystem::Real()->RemoveAll(path).ok());
  }

  TempDir dir_;
  Flags flags_;
  const int ranks_;
  std::map<std::string, std::string> addresses_;
  std::map<std::string, std::string> routes_;
  std::map<std::string, std::vector<std::string>> environment_;
  std::map<std::string, std::unique_ptr<Subprocess>> processes_;
};

}  // namespace ddpo::testing
