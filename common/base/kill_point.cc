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

struct Armed {
  std::string name;
  std::atomic<int> passes_left{0};
};

// Null where no kill is asked for.
Armed* ArmedPoint() {
  static Armed* const armed = []() -> Armed* {
    const char* variable = std::getenv("DDPO_KILL_AT");
    if (variable == nullptr) return nullptr;
    const std::string text = variable;
    const size_t colon = text.rfind(':');
    int passes = 0;
    if (colon == std::string::npos || !absl::SimpleAtoi(text.substr(colon + 1), &passes) ||
        passes < 1) {
      LogError("DDPO_KILL_AT=", text, ": expected NAME:N");
      return nullptr;
    }
    auto* point = new Armed;
    point->name = text.substr(0, colon);
    point->passes_left = passes;
    return point;
  }();
  return armed;
}

}  // namespace

void KillPoint(const char* name) {
  Armed* const armed = ArmedPoint();
  if (armed == nullptr || armed->name != name || --armed->passes_left != 0) return;
  LogError("killed at ", name, ", as DDPO_KILL_AT says");
  (void)kill(getpid(), SIGKILL);
}

}  // namespace ddpo
