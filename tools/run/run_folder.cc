#include "tools/run/run_folder.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/config/same_run.h"

namespace ddpo {

std::string RunFolder::SampleGrid(int64_t epoch) const {
  return absl::StrFormat("%s/epoch_%04d.png", samples_dir(), epoch);
}

std::string RunFolder::PoliciesDir(const config::v1::Config& config) const {
  return path_ + (config.training().full_finetuning() ? "/unet" : "/lora");
}

std::vector<RunFolder::SavedPolicy> RunFolder::SavedPolicies(
    const config::v1::Config& config) const {
  std::vector<SavedPolicy> saved;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(PoliciesDir(config), error)) {
    const std::string name = entry.path().filename().string();
    absl::string_view number = name;
    int64_t epoch = 0;
    if (!absl::ConsumePrefix(&number, "epoch_") || !absl::ConsumeSuffix(&number, ".safetensors") ||
        !absl::SimpleAtoi(number, &epoch)) {
      continue;
    }
    saved.push_back({epoch, entry.path().string()});
  }
  std::sort(saved.begin(), saved.end(),
            [](const SavedPolicy& a, const SavedPolicy& b) { return a.epoch < b.epoch; });
  return saved;
}

absl::StatusOr<std::string> RunFolder::Prepare(const config::v1::Config& config) const {
  FileSystem* files = FileSystem::Real();
  for (const std::string& dir : {PoliciesDir(config), samples_dir(), path_ + "/logs"}) {
    DDPO_RETURN_IF_ERROR(files->CreateDirectories(dir));
  }
  std::string change;
  if (files->Exists(config_path())) {
    DDPO_ASSIGN_OR_RETURN(const config::v1::Config existing, LoadConfig(config_path()));
    if (const absl::Status same = CheckSameRun(existing, config); !same.ok()) {
      return absl::FailedPreconditionError(absl::StrCat(
          path_, " holds a run with another config (", same.message(),
          "); take another --run-dir, or go on with its own: ddpo up --resume ", path_));
    }
    change = DescribeRankChange(existing, config);
  }
  DDPO_RETURN_IF_ERROR(WriteFileAtomically(config_path(), ConfigToYaml(config)));
  return change;
}

}  // namespace ddpo
