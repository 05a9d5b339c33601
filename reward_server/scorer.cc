#include "reward_server/scorer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace ddpo {

absl::Status ScorerRegistry::Register(const std::string& name, Factory factory) {
  if (!factories_.emplace(name, std::move(factory)).second) {
    return absl::AlreadyExistsError(absl::StrCat("scorer '", name, "' is registered already"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Scorer>> ScorerRegistry::Make(const std::string& name) const {
  auto it = factories_.find(name);
  if (it == factories_.end()) {
    return absl::NotFoundError(absl::StrCat("unknown scorer '", name, "'; this program knows ",
                                            absl::StrJoin(Names(), ", ")));
  }
  return it->second();
}

std::vector<std::string> ScorerRegistry::Names() const {
  std::vector<std::string> names;
  names.reserve(factories_.size());
  for (const auto& [name, factory] : factories_) names.push_back(name);
  return names;
}

}  // namespace ddpo
