#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "ddpo/reward/v1/jobs.pb.h"
#include "reward_server/jobs_store.h"
#include "reward_server/scorer_pool.h"

namespace ddpo {

struct JobRunnerOptions {
  // Jobs that are worked on side by side.
  int workers = 2;
  // Items of a job that are in the batcher at a time; other jobs get their turn after them.
  int items_at_a_time = 64;
  int64_t bytes_at_a_time = int64_t{64} << 20;
  int64_t max_image_pixels = 16777216;
  // Jobs are forgotten this long after their end.
  absl::Duration max_age = absl::Hours(24 * 7);
  // Pause after an error of the disk.
  absl::Duration retry_pause = absl::Seconds(1);
  Clock* clock = Clock::Real();
};

// Works off the jobs of a store: each in turn gives a few items to its scorer's batcher, where they
// compete with other callers', and writes the results. What is under way when the process dies is
// computed again; what is written is not.
class JobRunner {
 public:
  // Store and pool outlive the runner.
  JobRunner(JobStore* store, ScorerPool* pool, const JobRunnerOptions& options);
  // Stops.
  ~JobRunner();

  // Takes up the store's unfinished jobs and starts the threads.
  absl::Status Start() ABSL_LOCKS_EXCLUDED(mu_);

  // A job was accepted.
  void Add(const std::string& name) ABSL_LOCKS_EXCLUDED(mu_);

  // A job was cancelled or deleted: drops its items and tells those who wait for it.
  void Drop(const std::string& name) ABSL_LOCKS_EXCLUDED(mu_);

  // The job once it has ended, or as it is at the deadline. CANCELLED when `cancelled` answers
  // true, UNAVAILABLE when the runner stops; asked about ten times a second.
  absl::StatusOr<reward::v1::Job> WaitForEnd(const std::string& name, absl::Time deadline,
                                             const std::function<bool()>& cancelled)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Drops what is under way and joins the threads. Unfinished jobs stay in the store.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  class Chunk;

  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  // Forgets old jobs from time to time.
  void Expire() ABSL_LOCKS_EXCLUDED(mu_);
  // The next job; empty when the runner stops. Blocks.
  std::string Take() ABSL_LOCKS_EXCLUDED(mu_);
  // Gives a few of its items to the scorer. True if the job has more to do.
  absl::StatusOr<bool> Advance(const std::string& name) ABSL_LOCKS_EXCLUDED(mu_);
  // False, as the job has nothing more to do; UNAVAILABLE if that cannot be written now.
  absl::StatusOr<bool> EndAsFailed(const std::string& name, absl::StatusCode code,
                                   const std::string& reason, const std::string& message);
  // Submits the chunk and waits for it; waits as well while the queue is full.
  absl::Status Score(const std::string& name, Batcher* batcher, const std::shared_ptr<Chunk>& chunk)
      ABSL_LOCKS_EXCLUDED(mu_);
  void Pause(absl::Duration duration) ABSL_LOCKS_EXCLUDED(mu_);

  JobStore* const store_;
  ScorerPool* const pool_;
  const JobRunnerOptions options_;

  absl::Mutex mu_;
  absl::CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<std::string> queue_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, std::shared_ptr<Chunk>> running_ ABSL_GUARDED_BY(mu_);
  std::vector<std::thread> threads_;
};

}  // namespace ddpo
