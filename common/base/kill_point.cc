#include "common/base/kill_point.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <string>

#include "absl/strings/numbers.h"
#include "common/base/logging.h"

namespace ddpo {
namespace {

// One variable's wish.
class Trigger {
 public:
  explicit Trigger(const char* variable) : variable_(variable) {
    const char* value = std::getenv(variable);
    if (value == nullptr) return;
    const std::string text = value;
    const size_t colon = text.rfind(':');
    int passes = 0;
    if (colon == std::string::npos || !absl::SimpleAtoi(text.substr(colon + 1), &passes) ||
        passes < 1) {
      LogError(variable, "=", text, ": expected NAME:N");
      return;
    }
    name_ = text.substr(0, colon);
    passes_left_ = passes;
  }

  // Whether this is the pass that was asked for.
  bool Fires(const char* name) {
    if (name_ != name || --passes_left_ != 0) return false;
    LogError("at ", name, ", as ", variable_, " says");
    return true;
  }

 private:
  const char* const variable_;
  std::string name_;  // empty: never
  std::atomic<int> passes_left_{0};
};

}  // namespace

void KillPoint(const char* name) {
  static auto* const kill_trigger = new Trigger("DDPO_KILL_AT");
  static auto* const stop_trigger = new Trigger("DDPO_STOP_AT");
  static auto* const hang_trigger = new Trigger("DDPO_HANG_AT");
  if (kill_trigger->Fires(name)) (void)kill(getpid(), SIGKILL);
  if (stop_trigger->Fires(name)) (void)kill(getpid(), SIGSTOP);
  if (hang_trigger->Fires(name)) {
    while (true) pause();
  }
}

}  // namespace ddpo
