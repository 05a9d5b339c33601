#include "reward_server/scorer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"

namespace ddpo {

absl::Status ScorerRegistry::Register(const std::string& name, Factory factory) {
  if (!factories_.emplace(name, std::move(factory)).second) {
    return absl::AlreadyExistsError(absl::StrCat("scorer '", name, "' is registered already"));
  }
  return absl::OkStatus();
}

void ScorerRegistry::Decorate(
    std::function<std::unique_ptr<Scorer>(std::unique_ptr<Scorer>)> decorate) {
  for (auto& [name, factory] : factories_) {
    factory = [plain = std::move(factory), decorate]() -> absl::StatusOr<std::unique_ptr<Scorer>> {
      DDPO_ASSIGN_OR_RETURN(std::unique_ptr<Scorer> scorer, plain());
      return decorate(std::move(scorer));
    };
  }
}

absl::StatusOr<std::unique_ptr<Scorer>> ScorerRegistry::Make(const std::string& name) const {
  auto it = factories_.find(name);
  if (it == factories_.end()) {
    if (const auto missing = missing_.find(name); missing != missing_.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("scorer '", name, "' needs ", missing->second));
    }
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
