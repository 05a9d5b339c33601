#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "reward_server/batcher.h"
#include "reward_server/scorer.h"

namespace ddpo {

// The scorers of one server, each behind its own batcher.
class ScorerPool {
 public:
  // Makes the named scorers. INVALID_ARGUMENT for no name or a name given twice; otherwise the
  // registry's error.
  static absl::StatusOr<std::unique_ptr<ScorerPool>> Create(const ScorerRegistry& registry,
                                                            const std::vector<std::string>& names,
                                                            const BatcherOptions& options,
                                                            RewardServerMetrics* metrics = nullptr);

  // For scorers that were made elsewhere.
  ScorerPool(std::vector<std::unique_ptr<Scorer>> scorers, const BatcherOptions& options,
             RewardServerMetrics* metrics = nullptr);

  // NOT_FOUND lists the names that this server has. The pool owns the batcher.
  absl::StatusOr<Batcher*> Find(const std::string& name) const;

  // By name.
  std::vector<Batcher*> batchers() const;

  // Batcher::Stop and Batcher::Abort of each.
  void Stop();
  void Abort();

 private:
  std::map<std::string, std::unique_ptr<Batcher>> batchers_;
};

}  // namespace ddpo
