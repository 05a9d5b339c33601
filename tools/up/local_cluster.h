#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "ddpo/cluster/v1/cluster.pb.h"
#include "ddpo/config/v1/config.pb.h"
#include "tools/up/supervisor.h"

namespace ddpo {

// The processes of one run on this machine: reward servers, learner, actors.
class LocalCluster {
 public:
  struct Options {
    config::v1::Config config;
    std::string run_dir;  // has config.yaml
    // Folder with ddpo-learner, ddpo-actor and ddpo-reward-server.
    std::string program_dir;
    // What AssignGpus says.
    std::map<std::string, std::string> gpus;
    // Gets a line for people when something happens.
    std::function<void(const std::string&)> note;
    Clock* clock = Clock::Real();
  };

  explicit LocalCluster(Options options);

  // Looks after the processes; to be called a few times a second. An error ends the run.
  absl::Status Tick();
  // Whether the learner has completed the run.
  bool Completed() const;
  // Whether the learner was asked to stop by somebody else, and has saved and ended.
  bool StoppedFromOutside() const;
  // What the learner says of itself; nothing while it does not answer.
  std::optional<cluster::v1::GetStatusResponse> Status() const;
  // Where the reward servers listen; empty while one of them has not said so.
  std::vector<std::string> RewardAddresses() const;

  // Stops the learner, which finishes its update and saves a checkpoint, and then the actors.
  // `asked`: by a person, who is told and can end the waiting; the learner then takes as long as it
  // takes, and else has five minutes. `abort` returning true stops waiting and kills.
  void StopTraining(bool asked, const std::function<bool()>& abort);
  // Stops what still runs.
  void StopAll(const std::function<bool()>& abort);

 private:
  // Adds a child with its GPU, if it has one.
  void Add(ChildSpec spec);
  std::string Program(const std::string& name) const;
  std::string Listen(const std::string& last) const;
  std::vector<std::string> LearnerCommand(int rank, const ChildAddresses& last);

  const Options options_;
  Supervisor supervisor_;
  std::string store_;  // where the learner's ranks meet
};

// The scorers that a reward server has to have for this config, comma-separated.
std::string ScorersFor(const config::v1::Config& config);

// Folder of this program's executable, where the other programs lie.
absl::StatusOr<std::string> ProgramDir();

}  // namespace ddpo
