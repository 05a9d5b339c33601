#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ddpo/cluster/v1/cluster.pb.h"
#include "ddpo/cluster/v1/ranks.pb.h"
#include "learner/ledger.h"
#include "learner/policy_trainer.h"

namespace ddpo {

// Takes trajectories over from actors and gives each epoch's to the trainer, in an order that does
// not depend on when they came. Thread-safe.
//
// Memory is bounded by admission: only samples of expected tasks are held, each once, so at most
// (max_staleness + 1) × samples_per_epoch, each of (T+1)·C·h·w + T floats. Holding more back would
// only keep an epoch from becoming complete. Besides, every open stream has one sample in hand.
class TrajectoryBuffer {
 public:
  // Samples of so many denoising steps and of latents [C,h,w], for a rank: those whose task names
  // it.
  TrajectoryBuffer(int num_steps, std::vector<int64_t> latent_shape, int rank)
      : num_steps_(num_steps), latent_shape_(std::move(latent_shape)), rank_(rank) {}

  // From now on the task's samples are taken. Tasks of other ranks are ignored.
  void Expect(const cluster::v1::RolloutTask& task);

  struct Answer {
    cluster::v1::SampleAck ack;
    // All samples of its task are here now, or have been trained.
    bool task_complete = false;
  };
  // Takes a sample over or says why not. Once an answer is TAKEN the actor may forget the sample.
  //   DUPLICATE  it is held already, or its epoch has been trained
  //   REFUSED    the task is unknown, numbers or shapes are wrong, or its reward is of another
  //              scorer
  Answer Offer(const cluster::v1::TrajectorySample& sample, uint64_t generation);

  // From now on rewards of another scorer are refused, as they are not comparable. Otherwise the
  // first sample that names its scorer decides. Nothing for an empty digest.
  void PinScorer(const std::string& digest);
  // Digest of the scorer that samples have to name; empty as long as any will do.
  std::string scorer_digest() const;

  struct Progress {
    int64_t have = 0;
    int64_t want = 0;
  };
  Progress EpochProgress(int64_t epoch) const;

  // Waits until all samples of the epoch are here; false if they are not in time.
  bool WaitForEpoch(int64_t epoch, absl::Time deadline) const;
  // Takes the epoch's samples out, by task and sample index. FAILED_PRECONDITION if they are not
  // all here.
  absl::StatusOr<std::vector<TrainingSample>> TakeEpoch(int64_t epoch);

  // Puts the numbers of `count` samples that TakeEpoch gave into the ledger as trained.
  void MarkTrained(int64_t count);
  // The epoch's samples were trained before this start of the process: late ones are duplicates.
  void MarkDone(int64_t epoch);

  cluster::v1::Ledger ledger() const;
  void RestoreLedger(const cluster::v1::Ledger& saved);

  // What all of this rank's samples, and those of the epoch, have come to.
  cluster::v1::RankProgress Report(int64_t epoch) const;

 private:
  struct Task {
    cluster::v1::RolloutTask task;          // as planned
    std::map<int, TrainingSample> samples;  // by sample index
  };

  std::string Fault(const cluster::v1::TrajectorySample& sample, const Task& task) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Progress ProgressLocked(int64_t epoch) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool CompleteLocked(int64_t epoch) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int num_steps_;
  const std::vector<int64_t> latent_shape_;
  const int rank_;
  mutable absl::Mutex mutex_;
  std::map<std::string, Task> tasks_ ABSL_GUARDED_BY(mutex_);
  std::string scorer_digest_ ABSL_GUARDED_BY(mutex_);
  int64_t done_before_epoch_ ABSL_GUARDED_BY(mutex_) = 0;
  // Samples taken from each actor in this generation.
  std::map<std::string, int64_t> delivered_ ABSL_GUARDED_BY(mutex_);
  Ledger ledger_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ddpo
