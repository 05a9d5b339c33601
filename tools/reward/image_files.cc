#include "tools/reward/image_files.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/config/prompts.h"

namespace ddpo {
namespace {

absl::Status CheckFirstBytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  char first[4] = {};
  in.read(first, sizeof(first));
  if (in.bad() || (!in && in.gcount() == 0 && !in.eof())) {
    return absl::NotFoundError(absl::StrCat("can't read ", path));
  }
  const absl::string_view bytes(first, static_cast<size_t>(in.gcount()));
  if (absl::StartsWith(bytes, "\xff\xd8\xff") || bytes == "\x89PNG") return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(path, " is neither a JPEG nor a PNG", bytes.empty() ? ": it is empty" : ""));
}

bool LooksLikeImage(const std::filesystem::path& path) {
  const std::string extension = absl::AsciiStrToLower(path.extension().string());
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png";
}

absl::StatusOr<std::vector<std::string>> ImagesOfFolder(const std::string& folder) {
  DDPO_ASSIGN_OR_RETURN(const std::vector<std::string> names, FileSystem::Real()->List(folder));
  std::vector<std::string> images;
  for (const std::string& name : names) {
    if (LooksLikeImage(name)) images.push_back(JoinPath(folder, name));
  }
  if (images.empty()) {
    return absl::NotFoundError(
        absl::StrCat("folder ", folder, " holds no .jpg, .jpeg or .png file"));
  }
  return images;
}

std::string BaseName(const std::string& path) {
  return std::filesystem::path(path).filename().string();
}

}  // namespace

absl::StatusOr<std::vector<std::string>> FindImages(const std::vector<std::string>& paths) {
  std::vector<std::string> images;
  for (const std::string& path : paths) {
    std::error_code error;
    const std::filesystem::file_status status = std::filesystem::status(path, error);
    if (!std::filesystem::exists(status)) {
      return absl::NotFoundError(absl::StrCat("there is no ", path));
    }
    if (!std::filesystem::is_directory(status)) {
      images.push_back(path);
      continue;
    }
    DDPO_ASSIGN_OR_RETURN(const std::vector<std::string> inside, ImagesOfFolder(path));
    images.insert(images.end(), inside.begin(), inside.end());
  }
  for (const std::string& image : images) DDPO_RETURN_IF_ERROR(CheckFirstBytes(image));
  return images;
}

absl::StatusOr<std::vector<std::string>> ReadPrompts(const std::string& file,
                                                     const std::vector<std::string>& images) {
  DDPO_ASSIGN_OR_RETURN(const std::vector<std::string> lines, ReadPromptFile(file));
  const bool named = absl::StrContains(lines[0], '\t');
  if (!named) {
    if (lines.size() == images.size()) return lines;
    return absl::InvalidArgumentError(
        absl::StrCat(file, " holds ", lines.size(), " prompts for ", images.size(),
                     " images; expected a prompt a line in the images' order, or lines "
                     "FILE NAME<tab>PROMPT"));
  }
  std::map<std::string, std::string> by_name;
  for (const std::string& line : lines) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits('\t', 1));
    if (parts.size() != 2) {
      return absl::InvalidArgumentError(
          absl::StrCat(file, ": `", line, "` has no tab between file name and prompt, as others"));
    }
    by_name[parts[0]] = std::string(absl::StripAsciiWhitespace(parts[1]));
  }
  std::vector<std::string> prompts;
  for (const std::string& image : images) {
    const auto found = by_name.find(BaseName(image));
    if (found == by_name.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat(file, " holds no prompt for ", BaseName(image)));
    }
    prompts.push_back(found->second);
  }
  return prompts;
}

}  // namespace ddpo
