#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace ddpo {

// How a process ended.
struct ExitStatus {
  int code = 0;    // meaningful where signal is 0
  int signal = 0;  // the signal that killed it
  bool ok() const { return code == 0 && signal == 0; }
  // "exit code 2", "killed by signal 9 (Killed)".
  std::string ToString() const;
};

// A child process. It is killed when its parent dies, however that happens: Linux ties this to the
// thread that started it, which so has to live on as long as the child. One thread uses it.
class Subprocess {
 public:
  struct Options {
    // Program and its arguments; the program is a path.
    std::vector<std::string> argv = {};
    // File that stdout and stderr are appended to; empty: the parent's own.
    std::string log_file = "";
    // NAME=VALUE, besides the parent's.
    std::vector<std::string> environment = {};
  };

  // NOT_FOUND if the program is not there or cannot be run.
  static absl::StatusOr<std::unique_ptr<Subprocess>> Start(const Options& options);

  // Kills (SIGKILL) and reaps the child if it still runs.
  ~Subprocess();

  pid_t pid() const { return pid_; }
  // Sends a signal, as in Kill(SIGTERM). Nothing happens after the child was reaped.
  void Kill(int signal);
  // How it ended, if it has.
  std::optional<ExitStatus> Poll();
  // Waits for the end, at most that long.
  std::optional<ExitStatus> Wait(absl::Duration timeout = absl::InfiniteDuration());

 private:
  explicit Subprocess(pid_t pid) : pid_(pid) {}

  const pid_t pid_;
  std::optional<ExitStatus> status_;
};

}  // namespace ddpo
