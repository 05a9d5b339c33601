#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/subprocess.h"
#include "ddpo/config/v1/config.pb.h"
#include "tools/run/run_folder.h"

namespace ddpo {

// A reward server for one command, with the scorers of a run's config; ends with this object.
class RewardChild {
 public:
  // Waits until it listens; its log goes to the run's folder. CANCELLED once `cancelled` answers
  // true, INTERNAL if it ends.
  static absl::StatusOr<std::unique_ptr<RewardChild>> Start(const config::v1::Config& config,
                                                            const RunFolder& run,
                                                            const std::function<bool()>& cancelled);

  const std::string& address() const { return address_; }

 private:
  RewardChild() = default;

  std::unique_ptr<Subprocess> process_;
  std::string address_;
};

}  // namespace ddpo
