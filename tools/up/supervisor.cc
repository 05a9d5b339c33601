#include "tools/up/supervisor.h"

#include <algorithm>
#include <csignal>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

// How often Stop looks whether the children have ended.
constexpr absl::Duration kStopPoll = absl::Milliseconds(20);
// Lines of a log that an error quotes.
constexpr size_t kQuotedLines = 8;

std::string EndOfLog(const std::string& path) {
  absl::StatusOr<std::string> log = ReadFile(path);
  if (!log.ok() || log->empty()) return absl::StrCat(path, " is empty");
  std::vector<std::string> lines = absl::StrSplit(*log, '\n', absl::SkipEmpty());
  std::string quoted = absl::StrCat("the end of ", path, ":");
  for (size_t i = lines.size() - std::min(lines.size(), kQuotedLines); i < lines.size(); ++i) {
    absl::StrAppend(&quoted, "\n  ", lines[i]);
  }
  return quoted;
}

// What a child wrote once it listens: its service's address, if it has one, and that of its
// metrics, a line each.
std::optional<ChildAddresses> ReadAddresses(const std::string& path, bool serves) {
  absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return std::nullopt;
  const std::vector<std::string> lines = absl::StrSplit(*text, '\n', absl::SkipWhitespace());
  if (lines.empty()) return std::nullopt;
  ChildAddresses addresses;
  if (serves) addresses.service = lines[0];
  if (lines.size() > (serves ? 1 : 0)) addresses.metrics = lines[serves ? 1 : 0];
  return addresses;
}

}  // namespace

void Supervisor::Add(ChildSpec spec) { children_.emplace_back(std::move(spec), options_.restart); }

std::string Supervisor::LogPath(const Child& child) const {
  return absl::StrCat(options_.run_dir, "/logs/", child.spec.name, ".log");
}

std::string Supervisor::AddressPath(const Child& child) const {
  return absl::StrCat(options_.run_dir, "/logs/", child.spec.name, ".address");
}

absl::Status Supervisor::StartChild(Child& child) {
  std::optional<std::vector<std::string>> command = child.spec.command(child.addresses);
  if (!command) return absl::OkStatus();
  DDPO_RETURN_IF_ERROR(FileSystem::Real()->RemoveAll(AddressPath(child)));
  command->push_back("--address-file");
  command->push_back(AddressPath(child));
  std::vector<std::string> environment = options_.environment;
  environment.insert(environment.end(), child.spec.environment.begin(),
                     child.spec.environment.end());
  DDPO_ASSIGN_OR_RETURN(child.process, Subprocess::Start({.argv = *std::move(command),
                                                          .log_file = LogPath(child),
                                                          .environment = std::move(environment)}));
  if (child.completed && options_.note) {
    options_.note(absl::StrCat(child.spec.name, " had ended, and the run goes on; started again"));
  }
  child.completed = false;
  child.addresses_known = false;
  table_changed_ = true;
  return absl::OkStatus();
}

absl::Status Supervisor::Reap(Child& child, absl::Time now) {
  const std::optional<ExitStatus> exit = child.process->Poll();
  if (!exit) return absl::OkStatus();
  child.process.reset();
  child.addresses_known = false;
  table_changed_ = true;
  if (exit->ok()) {
    child.completed = true;
    child.ended = child.spec.restart_when_done == absl::InfiniteDuration();
    child.next_start = now + child.spec.restart_when_done;
    return absl::OkStatus();
  }
  if (exit->signal == 0 && exit->code == child.spec.stopped_exit_code) {
    child.ended = child.stopped = true;
    return absl::OkStatus();
  }
  const std::string death = absl::StrCat(child.spec.name, " ended with ", exit->ToString());
  if (exit->signal == 0 && child.spec.final_exit_codes.contains(exit->code)) {
    child.ended = true;
    const std::string message = absl::StrCat(death, "; ", EndOfLog(LogPath(child)));
    return exit->code == kExitBadConfig ? absl::InvalidArgumentError(message)
                                        : absl::InternalError(message);
  }
  if (child.spec.group.empty()) return ScheduleStart(child, now, death);
  child.died = now;
  if (options_.note) {
    options_.note(absl::StrCat(death, "; starting all of the ", child.spec.group, " again"));
  }
  return absl::OkStatus();
}

absl::Status Supervisor::ScheduleStart(Child& child, absl::Time now, const std::string& death) {
  const std::optional<absl::Time> next = child.policy.NextStart(now);
  if (!next) {
    child.ended = true;
    return absl::InternalError(absl::StrCat(
        death, ", as so often before that it is not started again; ", EndOfLog(LogPath(child))));
  }
  child.next_start = *next;
  ++child.restarts;
  if (child.spec.group.empty() && options_.note) {
    options_.note(absl::StrCat(death, "; starting it again"));
  }
  return absl::OkStatus();
}

absl::Status Supervisor::TendGroups(absl::Time now) {
  std::map<std::string, std::vector<Child*>> groups;
  for (Child& child : children_) {
    if (!child.spec.group.empty()) groups[child.spec.group].push_back(&child);
  }
  for (const auto& [name, members] : groups) {
    absl::Time first_death = absl::InfiniteFuture();
    bool running = false;
    for (const Child* child : members) {
      if (child->died) first_death = std::min(first_death, *child->died);
      running |= child->process != nullptr;
    }
    if (first_death == absl::InfiniteFuture()) continue;
    if (running && now < first_death + options_.group_patience) continue;
    std::optional<absl::Time> start;
    for (Child* child : members) {
      child->process.reset();  // kills what still runs
      child->addresses_known = false;
      child->died.reset();
      if (child->completed) continue;
      child->ended = child->stopped = false;
      DDPO_RETURN_IF_ERROR(ScheduleStart(*child, now, absl::StrCat("the group ", name, " ended")));
      // Together, whichever of them has died how often.
      child->next_start = *(start = start.value_or(child->next_start));
    }
    table_changed_ = true;
  }
  return absl::OkStatus();
}

absl::Status Supervisor::Tick() {
  const absl::Time now = options_.clock->Now();
  for (Child& child : children_) {
    if (child.process != nullptr) DDPO_RETURN_IF_ERROR(Reap(child, now));
  }
  DDPO_RETURN_IF_ERROR(TendGroups(now));
  for (Child& child : children_) {
    if (child.process == nullptr && !child.ended && !child.died && now >= child.next_start) {
      DDPO_RETURN_IF_ERROR(StartChild(child));
    }
    if (child.process != nullptr && !child.addresses_known) {
      std::optional<ChildAddresses> addresses =
          ReadAddresses(AddressPath(child), child.spec.serves);
      if (addresses) {
        child.addresses = *std::move(addresses);
        child.addresses_known = true;
        table_changed_ = true;
      }
    }
  }
  if (!table_changed_) return absl::OkStatus();
  table_changed_ = false;
  return WriteTable();
}

absl::Status Supervisor::WriteTable() const {
  nlohmann::ordered_json processes = nlohmann::ordered_json::array();
  for (const Child& child : children_) {
    processes.push_back({{"name", child.spec.name},
                         {"pid", child.process == nullptr ? 0 : child.process->pid()},
                         {"address", child.addresses.service},
                         {"metrics_address", child.addresses.metrics},
                         {"restarts", child.restarts}});
  }
  const nlohmann::ordered_json table{{"processes", std::move(processes)}};
  return WriteFileAtomically(options_.run_dir + "/pids.json", table.dump(2) + "\n");
}

const Supervisor::Child* Supervisor::Find(const std::string& name) const {
  const auto child = std::find_if(children_.begin(), children_.end(), [&](const Child& candidate) {
    return candidate.spec.name == name;
  });
  return child == children_.end() ? nullptr : &*child;
}

bool Supervisor::Completed(const std::string& name) const {
  const Child* child = Find(name);
  return child != nullptr && child->completed;
}

bool Supervisor::Stopped(const std::string& name) const {
  const Child* child = Find(name);
  return child != nullptr && child->stopped;
}

std::optional<ChildAddresses> Supervisor::Addresses(const std::string& name) const {
  const Child* child = Find(name);
  // A child that is just being started again comes back at the same place.
  if (child == nullptr || (child->addresses.service.empty() && child->addresses.metrics.empty())) {
    return std::nullopt;
  }
  return child->addresses;
}

void Supervisor::Stop(const std::string& prefix, absl::Duration patience,
                      const std::function<bool()>& abort) {
  std::vector<Child*> running;
  for (Child& child : children_) {
    if (!absl::StartsWith(child.spec.name, prefix)) continue;
    child.ended = true;
    child.died.reset();
    if (child.process == nullptr) continue;
    child.process->Kill(SIGTERM);
    running.push_back(&child);
  }
  const absl::Time deadline = options_.clock->Now() + patience;
  while (!running.empty()) {
    running.erase(std::remove_if(running.begin(), running.end(),
                                 [](Child* child) {
                                   if (!child->process->Poll()) return false;
                                   child->process.reset();
                                   return true;
                                 }),
                  running.end());
    if (running.empty()) break;
    if (options_.clock->Now() > deadline || abort()) {
      for (Child* child : running) {
        if (options_.note) options_.note(absl::StrCat("killing ", child->spec.name));
        child->process.reset();
      }
      break;
    }
    options_.clock->Sleep(kStopPoll);
  }
  const absl::Status written = WriteTable();
  if (!written.ok() && options_.note) options_.note(std::string(written.message()));
}

}  // namespace ddpo
