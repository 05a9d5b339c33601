#include "common/nn/model_digest.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"

namespace ddpo {

absl::StatusOr<std::string> ModelDigest(const std::string& dir,
                                        const std::vector<std::string>& further_files) {
  DDPO_ASSIGN_OR_RETURN(const std::vector<std::string> names, FileSystem::Real()->List(dir));
  std::vector<std::string> files;
  for (const std::string& name : names) {
    if (absl::StartsWith(name, "model") && absl::StrContains(name, ".safetensors")) {
      files.push_back(name);
    }
  }
  files.insert(files.end(), further_files.begin(), further_files.end());
  Sha256 digest;
  for (const std::string& file : files) {
    DDPO_ASSIGN_OR_RETURN(const std::string contents, Sha256HexOfFile(JoinPath(dir, file)));
    digest.Update(absl::StrCat(file, " ", contents, "\n"));
  }
  return digest.HexDigest();
}

}  // namespace ddpo
