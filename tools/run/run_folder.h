#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ddpo/config/v1/config.pb.h"

namespace ddpo {

// Names of what lies in a run's folder.
class RunFolder {
 public:
  explicit RunFolder(std::string path) : path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  std::string config_path() const { return path_ + "/config.yaml"; }
  std::string metrics_path() const { return path_ + "/metrics.jsonl"; }
  std::string summary_path() const { return path_ + "/summary.json"; }
  std::string report_path() const { return path_ + "/report.html"; }
  std::string processes_path() const { return path_ + "/pids.json"; }
  std::string samples_dir() const { return path_ + "/samples"; }

  // The grid of the policy after `epoch` updates; 0 is the base model's.
  std::string SampleGrid(int64_t epoch) const;

  // Where a run with this config has its policies: lora/, or unet/ with full fine-tuning.
  std::string PoliciesDir(const config::v1::Config& config) const;
  std::string FinalPolicy(const config::v1::Config& config) const {
    return PoliciesDir(config) + "/final.safetensors";
  }
  struct SavedPolicy {
    int64_t epoch = 0;  // of the file's name
    std::string path;
  };
  // epoch_*.safetensors of that folder, by epoch. Empty where there are none.
  std::vector<SavedPolicy> SavedPolicies(const config::v1::Config& config) const;

  // Makes the folder ready for a run: creates it with its config.yaml or, where a run is there that
  // can go on with this config (CheckSameRun), makes it that run's. Says what the change does, for
  // people, if there is anything to say. FAILED_PRECONDITION names the keys that stand against it.
  absl::StatusOr<std::string> Prepare(const config::v1::Config& config) const;

 private:
  std::string path_;
};

}  // namespace ddpo
