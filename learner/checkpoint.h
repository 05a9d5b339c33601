#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
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
  std::string scorer_digest;   // of the scorer of all rewards so far; empty where it is not known
  uint64_t generation = 0;     // of the learner that wrote it
  double elapsed_seconds = 0;  // of the run, over all its starts
  // Versions before epochs_done that later epochs still sample with, where staleness is allowed.
  std::map<int64_t, std::string> policies;
};

// Which checkpoints stay when one was written: that one, and of the `keep` − 1 before it those that
// are no older than `max_age`.
struct CheckpointRetention {
  int keep = 1;
  absl::Duration max_age = absl::InfiniteDuration();
};

// Checkpoints in a folder, DIR/epoch_NNNNN each:
//
//   MANIFEST.json      format, epochs_done, generation, time, and the SHA-256 of every other file
//   state.json         counters, ledger, prompt statistics, digests of base model and scorer
//   trainer.safetensors  LoRA and optimizer
//   config.yaml
//   policy_NNNNN.safetensors  for each older version in `policies`
//
// One is written under a temporary name, synced file by file, renamed and the folder synced: it is
// there whole or not at all. One of the same name is moved to DIR/.old-epoch_NNNNN until then, and
// is read there if the new one did not come to be. Whatever is damaged is noticed by its hash and
// passed over.
class CheckpointStore {
 public:
  CheckpointStore(std::string dir, const CheckpointRetention& retention,
                  FileSystem* file_system = FileSystem::Real(), Clock* clock = Clock::Real())
      : dir_(std::move(dir)), retention_(retention), file_system_(file_system), clock_(clock) {}

  // Writes one and then removes those that need not stay, and what broken writes left behind. Those
  // of more epochs, which a run has that went on from before damaged ones, neither count nor go.
  absl::Status Write(const Checkpoint& checkpoint);

  // The newest sound one; nothing if there is none at all. Damaged ones are passed over and told in
  // `warnings`. DATA_LOSS if there are checkpoints and all are damaged: starting from nothing would
  // throw a run away in silence.
  absl::StatusOr<std::optional<Checkpoint>> ReadNewest(std::vector<std::string>* warnings);

  // The epochs that the newest one holds by its name, sound or not; 0 without any.
  absl::StatusOr<int64_t> NewestEpochs();

 private:
  // A checkpoint's folder, by its name.
  struct Saved {
    int64_t epochs_done = 0;
    bool in_place = false;  // not moved away for another one of the same number
    std::string name;
    auto operator<=>(const Saved&) const = default;
  };

  absl::StatusOr<Checkpoint> Read(const std::string& name);
  // All there are, the newest last.
  absl::StatusOr<std::vector<Saved>> List();
  // Nothing for what is no checkpoint.
  static std::optional<Saved> ParseName(const std::string& name);
  // Names in the folder; none if it is not there.
  absl::StatusOr<std::vector<std::string>> Names();
  // Now, for one whose manifest does not say when it was written.
  absl::Time TimeWritten(const std::string& name);
  // `written`: the epochs of the one that was just written.
  absl::Status RemoveOld(int64_t written);

  const std::string dir_;
  const CheckpointRetention retention_;
  FileSystem* const file_system_;
  Clock* const clock_;
};

}  // namespace ddpo
