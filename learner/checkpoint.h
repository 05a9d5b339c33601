#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/files.h"
#include "ddpo/cluster/v1/cluster.pb.h"

namespace ddpo {

// All that a learner needs to go on after an epoch as if it had never stopped.
struct Checkpoint {
  // Epochs that are complete; the next one has this number.
  int64_t epochs_done = 0;
  std::string trainer_state;      // PolicyTrainer::SerializeState
  std::string prompt_statistics;  // PromptStatistics::SerializeState
  cluster::v1::Ledger ledger;
  std::string config_yaml;     // as resolved
  std::string model_digest;    // of the base model's folder
  uint64_t generation = 0;     // of the learner that wrote it
  double elapsed_seconds = 0;  // of the run, over all its starts
  // Versions before epochs_done that later epochs still sample with, where staleness is allowed.
  std::map<int64_t, std::string> policies;
};

// Checkpoints in a folder, DIR/epoch_NNNNN each:
//
//   MANIFEST.json      format, epochs_done, generation, and the SHA-256 of every other file
//   state.json         counters, ledger, prompt statistics, digest of the base model
//   trainer.safetensors  LoRA and optimizer
//   config.yaml
//   policy_NNNNN.safetensors  for each older version in `policies`
//
// One is written under a temporary name, synced file by file, renamed and the folder synced: it is
// there whole or not at all. Whatever is damaged is noticed by its hash and passed over.
class CheckpointStore {
 public:
  CheckpointStore(std::string dir, int keep, FileSystem* file_system = FileSystem::Real())
      : dir_(std::move(dir)), keep_(keep), file_system_(file_system) {}

  // Writes one and then removes all but the newest `keep`, and what broken writes left behind.
  absl::Status Write(const Checkpoint& checkpoint);

  // The newest sound one; nothing if there is none at all. Damaged ones are passed over and told in
  // `warnings`. DATA_LOSS if there are checkpoints and all are damaged: starting from nothing would
  // throw a run away in silence.
  absl::StatusOr<std::optional<Checkpoint>> ReadNewest(std::vector<std::string>* warnings);

 private:
  absl::StatusOr<Checkpoint> Read(const std::string& name);
  absl::StatusOr<std::vector<std::string>> NamesWithPrefix(const std::string& prefix);

  const std::string dir_;
  const int keep_;
  FileSystem* const file_system_;
};

}  // namespace ddpo
