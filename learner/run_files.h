#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/files.h"

namespace ddpo {

// The files of a run's folder that the learner writes.
class RunFiles {
 public:
  // full_finetuning: the run's policies are whole UNets, in unet/ instead of lora/.
  RunFiles(std::string run_dir, bool full_finetuning, FileSystem* file_system = FileSystem::Real())
      : run_dir_(std::move(run_dir)),
        full_finetuning_(full_finetuning),
        file_system_(file_system) {}

  std::string checkpoints_dir() const { return JoinPath(run_dir_, "checkpoints"); }

  // Makes the folders.
  absl::Status Prepare();

  // Counts the learner's starts: the number before this one, plus one, made durable before it is
  // returned, so that no two starts have the same.
  absl::StatusOr<uint64_t> NextGeneration();

  // Notes durably that a start of the run failed for this reason, and counts those of all starts.
  absl::Status CountFailure(const std::string& reason);
  // DATA_LOSS if the file cannot be read.
  absl::StatusOr<std::map<std::string, int64_t>> Failures() const;

  // Appends one epoch's line to metrics.jsonl.
  absl::Status AppendMetrics(const std::string& json_line);
  // Removes lines of epochs from `epochs_done` on, which a resumed run writes again, and a torn
  // one.
  absl::Status TruncateMetrics(int64_t epochs_done);

  // lora/epoch_NNNN.safetensors and lora/final.safetensors, or unet/epoch_NNNN.safetensors and
  // unet/final.safetensors.
  absl::Status WritePolicy(int64_t epochs_done, const std::string& safetensors);
  absl::Status WriteFinalPolicy(const std::string& safetensors);
  // Removes the final.safetensors of a run that was complete and now has more epochs, durably.
  absl::Status RemoveFinalPolicy();
  bool HasFinalPolicy() const { return file_system_->Exists(final_policy_path()); }

 private:
  std::string failures_path() const { return JoinPath(run_dir_, "failures.json"); }
  std::string metrics_path() const { return JoinPath(run_dir_, "metrics.jsonl"); }
  std::string policies_dir() const {
    return JoinPath(run_dir_, full_finetuning_ ? "unet" : "lora");
  }
  std::string final_policy_path() const { return JoinPath(policies_dir(), "final.safetensors"); }

  const std::string run_dir_;
  const bool full_finetuning_;
  FileSystem* const file_system_;
};

}  // namespace ddpo
