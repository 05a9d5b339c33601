#include "common/base/clock.h"

#include "absl/time/clock.h"

namespace ddpo {
namespace {

class RealClock : public Clock {
 public:
  absl::Time Now() override { return absl::Now(); }
  void WaitWithDeadline(absl::CondVar* signal, absl::Mutex* mutex, absl::Time deadline) override {
    signal->WaitWithDeadline(mutex, deadline);
  }
  void Sleep(absl::Duration duration) override { absl::SleepFor(duration); }
};

}  // namespace

Clock* Clock::Real() {
  static RealClock* const clock = new RealClock();
  return clock;
}

}  // namespace ddpo
