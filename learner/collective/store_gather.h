#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "learner/collective/key_value_store.h"

namespace ddpo {

// Gathers a small value of every rank through the store, and finds out which rank is missing when
// a collective call failed. Both backends use it, so that errors name ranks alike.
class StoreGather {
 public:
  StoreGather(std::shared_ptr<KeyValueStore> store, std::string prefix, int rank, int size,
              absl::Duration timeout);

  // Values in rank order. UNAVAILABLE names the ranks whose value did not come in time.
  absl::StatusOr<std::vector<std::string>> AllGather(const std::string& mine);

  // Turns the failure of call number `call` into an error that names the ranks that are gone: each
  // living rank reports its own failure in the store, the others are missing.
  absl::Status Diagnose(int64_t call, const std::string& what, const std::string& cause);

  void Abort() { aborted_ = true; }

 private:
  std::string Key(const std::string& kind, int64_t number, int rank) const;
  absl::StatusOr<std::string> WaitFor(const std::string& key, absl::Time deadline);

  const std::shared_ptr<KeyValueStore> store_;
  const std::string prefix_;
  const int rank_;
  const int size_;
  const absl::Duration timeout_;
  int64_t gathers_ = 0;
  std::atomic<bool> aborted_{false};
};

}  // namespace ddpo
