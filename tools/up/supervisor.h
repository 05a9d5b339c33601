#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/subprocess.h"
#include "tools/up/restart_policy.h"

namespace ddpo {

// Exit codes of our programs: the learner's for a run that failed, and everyone's for a config that
// can't be worked with.
inline constexpr int kExitFailed = 1;
inline constexpr int kExitBadConfig = 2;

// Where a child process listens.
struct ChildAddresses {
  std::string service;  // empty for an actor, which serves nothing but metrics
  std::string metrics;
};

struct ChildSpec {
  // Unique, as in `actor-0`: names the log and the entry of pids.json.
  std::string name;
  // Whether it serves RPCs; if not, only metrics.
  bool serves = true;
  // Exit codes after which starting it again can't help.
  std::set<int> final_exit_codes = {kExitBadConfig};
  // The command line at this moment, or nothing while what it needs is not there yet (as an actor
  // needs the learner's address). `last` are the addresses of the child's last start, which it is
  // to take again, so that its clients find it.
  std::function<std::optional<std::vector<std::string>>(const ChildAddresses& last)> command;
  // Children of one group live and die together: when one dies, the others are given a while to end
  // by themselves and say why, and then all are started again. Empty: on its own.
  std::string group = "";
  // The exit code of one that was asked to end, by whomever, before its work was done; it is not
  // started again.
  std::optional<int> stopped_exit_code = {};
  // How long after it ended with exit code 0 it is started again, if Tick is still called then: for
  // one that has no end of its own and ends only when it is told that all is over.
  absl::Duration restart_when_done = absl::InfiniteDuration();
  // NAME=VALUE for this child, besides what all have.
  std::vector<std::string> environment = {};
};

// Starts child processes, starts again what dies, and keeps pids.json. Its end kills the children
// that still run. One thread calls it.
class Supervisor {
 public:
  struct Options {
    // The run's folder: logs go to logs/NAME.log, the table to pids.json.
    std::string run_dir;
    RestartPolicy::Options restart;
    // For the rest of a group to end by itself; as long as any of its members may take.
    absl::Duration group_patience = absl::Seconds(15);
    // NAME=VALUE for the children, besides this process's own.
    std::vector<std::string> environment;
    // Gets a line for people when something happens.
    std::function<void(const std::string&)> note;
    Clock* clock = Clock::Real();
  };

  explicit Supervisor(Options options) : options_(std::move(options)) {}
  void Add(ChildSpec spec);

  // Reaps, starts what is due and reads addresses. Never blocks. An error means that a child is
  // broken for good (a bad config, or it dies again and again); it quotes the end of its log.
  absl::Status Tick();

  // Whether the child has ended by itself with exit code 0.
  bool Completed(const std::string& name) const;
  // Whether it has ended with its stopped_exit_code.
  bool Stopped(const std::string& name) const;
  // Where the child listens; nothing while it has not said so.
  std::optional<ChildAddresses> Addresses(const std::string& name) const;

  // Asks the children whose names start with `prefix` to end (SIGTERM), in the order in which they
  // were added, and waits; those that need longer than `patience` are killed, and `abort` returning
  // true kills at once. Stopped children are not started again.
  void Stop(const std::string& prefix, absl::Duration patience, const std::function<bool()>& abort);

 private:
  struct Child {
    Child(ChildSpec spec_of_child, const RestartPolicy::Options& restart)
        : spec(std::move(spec_of_child)), policy(restart) {}

    ChildSpec spec;
    RestartPolicy policy;
    std::unique_ptr<Subprocess> process;  // null while it is not running
    absl::Time next_start = absl::InfinitePast();
    ChildAddresses addresses;      // of the last start that said them
    bool addresses_known = false;  // by the process that is running
    int restarts = 0;
    std::optional<absl::Time> died;  // and waits for its group to be started again
    bool ended = false;              // for good
    bool completed = false;          // with exit code 0
    bool stopped = false;            // with its stopped_exit_code
  };

  std::string LogPath(const Child& child) const;
  std::string AddressPath(const Child& child) const;
  absl::Status StartChild(Child& child);
  absl::Status Reap(Child& child, absl::Time now);
  // Puts the child's next start down; an error if it has died too often. `death` says how it died.
  absl::Status ScheduleStart(Child& child, absl::Time now, const std::string& death);
  // Ends groups of which a child has died, and starts them again.
  absl::Status TendGroups(absl::Time now);
  absl::Status WriteTable() const;
  // Null for a name that there is not.
  const Child* Find(const std::string& name) const;

  const Options options_;
  std::vector<Child> children_;
  bool table_changed_ = false;
};

}  // namespace ddpo
