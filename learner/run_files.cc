#include "learner/run_files.h"

#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "common/base/status_macros.h"

namespace ddpo {

absl::Status RunFiles::Prepare() {
  for (const std::string& folder : {policies_dir(), checkpoints_dir()}) {
    DDPO_RETURN_IF_ERROR(file_system_->CreateDirectories(folder));
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> RunFiles::NextGeneration() {
  const std::string path = JoinPath(run_dir_, "generation");
  uint64_t generation = 0;
  if (file_system_->Exists(path)) {
    DDPO_ASSIGN_OR_RETURN(const std::string text, file_system_->Read(path));
    if (!absl::SimpleAtoi(text, &generation)) {
      return absl::DataLossError(absl::StrCat(path, ": `", text, "` is not a number"));
    }
  }
  ++generation;
  DDPO_RETURN_IF_ERROR(WriteFileAtomically(path, absl::StrCat(generation, "\n"), file_system_));
  return generation;
}

absl::StatusOr<std::map<std::string, int64_t>> RunFiles::Failures() const {
  std::map<std::string, int64_t> failures;
  if (!file_system_->Exists(failures_path())) return failures;
  DDPO_ASSIGN_OR_RETURN(const std::string text, file_system_->Read(failures_path()));
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::DataLossError(absl::StrCat(failures_path(), " is not a JSON object"));
  }
  for (const auto& [reason, count] : json.items()) {
    if (!count.is_number_integer()) {
      return absl::DataLossError(
          absl::StrCat(failures_path(), ": ", reason, " is not a whole number"));
    }
    failures[reason] = count.get<int64_t>();
  }
  return failures;
}

absl::Status RunFiles::CountFailure(const std::string& reason) {
  DDPO_ASSIGN_OR_RETURN(auto failures, Failures());
  ++failures[reason];
  return WriteFileAtomically(failures_path(), nlohmann::json(failures).dump() + "\n", file_system_);
}

absl::Status RunFiles::AppendMetrics(const std::string& json_line) {
  return file_system_->AppendSynced(metrics_path(), json_line + "\n");
}

absl::Status RunFiles::TruncateMetrics(int64_t epochs_done) {
  if (!file_system_->Exists(metrics_path())) return absl::OkStatus();
  DDPO_ASSIGN_OR_RETURN(const std::string text, file_system_->Read(metrics_path()));
  std::string kept;
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const auto json = nlohmann::json::parse(std::string(line), nullptr, /*allow_exceptions=*/false);
    if (json.is_object() && json.value("epoch", epochs_done) < epochs_done) {
      absl::StrAppend(&kept, line, "\n");
    }
  }
  return WriteFileAtomically(metrics_path(), kept, file_system_);
}

absl::Status RunFiles::WritePolicy(int64_t epochs_done, const std::string& safetensors) {
  const std::string name = absl::StrFormat("epoch_%04d.safetensors", epochs_done);
  return WriteFileAtomically(JoinPath(policies_dir(), name), safetensors, file_system_);
}

absl::Status RunFiles::RemoveFinalPolicy() {
  if (!HasFinalPolicy()) return absl::OkStatus();
  DDPO_RETURN_IF_ERROR(file_system_->RemoveAll(final_policy_path()));
  return file_system_->SyncDirectory(policies_dir());
}

absl::Status RunFiles::WriteFinalPolicy(const std::string& safetensors) {
  return WriteFileAtomically(final_policy_path(), safetensors, file_system_);
}

}  // namespace ddpo
