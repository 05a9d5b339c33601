#include "common/config/prompts.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

constexpr char kSetFolder[] = "assets/prompts";

absl::StatusOr<std::string> PathOfSet(const std::string& name) {
  auto path = FindResource(absl::StrCat(kSetFolder, "/", name, ".txt"));
  if (path.ok()) return path;
  std::vector<std::string> known;
  if (auto folder = FindResource(kSetFolder); folder.ok()) {
    DDPO_ASSIGN_OR_RETURN(known, FileSystem::Real()->List(*folder));
    for (std::string& file : known) file = file.substr(0, file.rfind(".txt"));
  }
  return absl::NotFoundError(
      absl::StrCat("prompts.set: no set `", name, "`; known are ", absl::StrJoin(known, ", ")));
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ReadPromptFile(const std::string& path) {
  DDPO_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  std::vector<std::string> prompts;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const absl::string_view prompt = absl::StripAsciiWhitespace(line);
    if (!prompt.empty() && !absl::StartsWith(prompt, "#")) prompts.emplace_back(prompt);
  }
  if (prompts.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": holds no prompt"));
  return prompts;
}

absl::StatusOr<std::vector<std::string>> LoadPrompts(const config::v1::PromptsConfig& config) {
  if (!config.list().empty()) {
    for (const std::string& prompt : config.list()) {
      if (absl::StripAsciiWhitespace(prompt).empty()) {
        return absl::InvalidArgumentError("prompts.list: holds an empty prompt");
      }
    }
    return std::vector<std::string>(config.list().begin(), config.list().end());
  }
  if (!config.file().empty()) return ReadPromptFile(config.file());
  DDPO_ASSIGN_OR_RETURN(const std::string path, PathOfSet(config.set()));
  return ReadPromptFile(path);
}

}  // namespace ddpo
