#include "common/base/subprocess.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace ddpo {
namespace {

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& string : strings) pointers.push_back(string.data());
  pointers.push_back(nullptr);
  return pointers;
}

// The parent's variables, with `changed` in place of those of the same names: of two entries with
// one name some programs take the first and some the last.
std::vector<std::string> Environment(const std::vector<std::string>& changed) {
  std::vector<std::string> variables = changed;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string inherited = *variable;
    const std::string name = inherited.substr(0, inherited.find('=') + 1);
    const bool is_changed = std::any_of(changed.begin(), changed.end(), [&](const auto& entry) {
      return entry.compare(0, name.size(), name) == 0;
    });
    if (!is_changed) variables.push_back(inherited);
  }
  return variables;
}

// Runs between fork and exec: only async-signal-safe calls. Does not return.
[[noreturn]] void RunChild(char* const* argv, char* const* environment, int log, int error_pipe,
                           pid_t parent) {
  const auto fail = [&] {
    const int error = errno;
    [[maybe_unused]] const ssize_t written = write(error_pipe, &error, sizeof(error));
    _exit(127);
  };
  // Of its own process group: the terminal's Ctrl-C reaches the parent, which decides.
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // the parent died before prctl
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  if (log >= 0 && (dup2(log, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0)) fail();
  execve(argv[0], argv, environment);
  fail();
  _exit(127);
}

}  // namespace

std::string ExitStatus::ToString() const {
  if (signal != 0) return absl::StrCat("killed by signal ", signal, " (", strsignal(signal), ")");
  return absl::StrCat("exit code ", code);
}

absl::StatusOr<std::unique_ptr<Subprocess>> Subprocess::Start(const Options& options) {
  if (options.argv.empty()) return absl::InvalidArgumentError("no program to start");
  std::vector<std::string> arguments = options.argv;
  std::vector<std::string> variables = Environment(options.environment);
  const std::vector<char*> argv = Pointers(arguments);
  const std::vector<char*> environment = Pointers(variables);

  int log = -1;
  if (!options.log_file.empty()) {
    log = open(options.log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (log < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", options.log_file));
  }
  int error_pipe[2];
  if (pipe2(error_pipe, O_CLOEXEC) != 0) {
    const int error = errno;
    if (log >= 0) close(log);
    return absl::ErrnoToStatus(error, "cannot make a pipe");
  }
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) RunChild(argv.data(), environment.data(), log, error_pipe[1], parent);
  const int fork_error = errno;
  if (log >= 0) close(log);
  close(error_pipe[1]);
  // The pipe closes at exec; before that it carries the error.
  int error = 0;
  ssize_t count = 0;
  do {
    count = pid < 0 ? 0 : read(error_pipe[0], &error, sizeof(error));
  } while (count < 0 && errno == EINTR);
  close(error_pipe[0]);
  if (pid < 0) return absl::ErrnoToStatus(fork_error, "cannot fork");
  if (count > 0) {
    waitpid(pid, nullptr, 0);
    return absl::ErrnoToStatus(error, absl::StrCat("cannot run ", options.argv[0]));
  }
  return std::unique_ptr<Subprocess>(new Subprocess(pid));
}

Subprocess::~Subprocess() {
  Kill(SIGKILL);
  Wait();
}

void Subprocess::Kill(int signal) {
  if (!status_.has_value()) kill(pid_, signal);
}

std::optional<ExitStatus> Subprocess::Poll() {
  if (status_.has_value()) return status_;
  int raw = 0;
  if (waitpid(pid_, &raw, WNOHANG) == pid_) {
    status_ = WIFSIGNALED(raw) ? ExitStatus{0, WTERMSIG(raw)} : ExitStatus{WEXITSTATUS(raw), 0};
  }
  return status_;
}

std::optional<ExitStatus> Subprocess::Wait(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  absl::Duration pause = absl::Milliseconds(1);
  while (!Poll().has_value() && absl::Now() < deadline) {
    absl::SleepFor(pause);
    pause = std::min(pause * 2, absl::Milliseconds(50));
  }
  return status_;
}

}  // namespace ddpo
