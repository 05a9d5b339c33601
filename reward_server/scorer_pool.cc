#include "reward_server/scorer_pool.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"

namespace ddpo {

absl::StatusOr<std::unique_ptr<ScorerPool>> ScorerPool::Create(
    const ScorerRegistry& registry, const std::vector<std::string>& names,
    const BatcherOptions& options, RewardServerMetrics* metrics) {
  if (names.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("no scorer is named; this program knows ",
                                                   absl::StrJoin(registry.Names(), ", ")));
  }
  std::set<std::string> seen;
  std::vector<std::unique_ptr<Scorer>> scorers;
  for (const std::string& name : names) {
    if (!seen.insert(name).second) {
      return absl::InvalidArgumentError(absl::StrCat("scorer '", name, "' is named twice"));
    }
    DDPO_ASSIGN_OR_RETURN(auto scorer, registry.Make(name));
    scorers.push_back(std::move(scorer));
  }
  return std::make_unique<ScorerPool>(std::move(scorers), options, metrics);
}

ScorerPool::ScorerPool(std::vector<std::unique_ptr<Scorer>> scorers, const BatcherOptions& options,
                       RewardServerMetrics* metrics) {
  for (std::unique_ptr<Scorer>& scorer : scorers) {
    const std::string name = scorer->info().name;
    BatcherOptions own_options = options;
    if (metrics != nullptr) own_options.metrics = &metrics->ForScorer(name);
    batchers_[name] = std::make_unique<Batcher>(std::move(scorer), own_options);
  }
}

absl::StatusOr<Batcher*> ScorerPool::Find(const std::string& name) const {
  auto it = batchers_.find(name);
  if (it == batchers_.end()) {
    std::vector<std::string> names;
    for (const auto& [known, batcher] : batchers_) names.push_back(known);
    return absl::NotFoundError(
        absl::StrCat("no scorer '", name, "'; this server has ", absl::StrJoin(names, ", ")));
  }
  return it->second.get();
}

std::vector<Batcher*> ScorerPool::batchers() const {
  std::vector<Batcher*> batchers;
  for (const auto& [name, batcher] : batchers_) batchers.push_back(batcher.get());
  return batchers;
}

void ScorerPool::Stop() {
  for (auto& [name, batcher] : batchers_) batcher->Stop();
}

void ScorerPool::Abort() {
  for (auto& [name, batcher] : batchers_) batcher->Abort();
}

}  // namespace ddpo
