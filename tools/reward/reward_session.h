#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ddpo/config/v1/security.pb.h"
#include "ddpo/reward/v1/jobs.grpc.pb.h"
#include "ddpo/reward/v1/reward.grpc.pb.h"

namespace ddpo {

// An image file and the prompt that it was made from; empty for none.
struct ImageToScore {
  std::string path;
  std::string prompt;
};

struct ScoredImages {
  std::string scorer;
  std::string scorer_digest;
  std::vector<reward::v1::ScoreResult> results;
};

// A reward server as a person at a terminal uses it: errors name the server and say what can be
// done. What may pass, as a restart of the server, is tried again for a minute.
class RewardSession {
 public:
  struct Options {
    std::string address;  // HOST:PORT
    config::v1::SecurityConfig security;
    // Deadline of one call that scores or sends images.
    absl::Duration timeout = absl::Minutes(5);
  };

  // Asks for the server's scorers; UNAVAILABLE, within seconds, if it does not answer.
  static absl::StatusOr<std::unique_ptr<RewardSession>> Connect(const Options& options);

  const std::vector<reward::v1::Scorer>& scorers() const { return scorers_; }

  // Scores the files in calls of a few megabytes. An image without a score has an error among the
  // results. NOT_FOUND for a scorer that the server does not have; INVALID_ARGUMENT for one that
  // needs prompts where they are missing. The item's id is its path.
  absl::StatusOr<ScoredImages> Score(const std::string& scorer,
                                     const std::vector<ImageToScore>& images);
  // Errors as Score. The same `request_id` with the same images gives the same job.
  absl::StatusOr<reward::v1::Job> Submit(const std::string& scorer, const std::string& request_id,
                                         const std::vector<ImageToScore>& images);

  // The job at its end, or as it is after `timeout`.
  absl::StatusOr<reward::v1::Job> WaitJob(const std::string& name, absl::Duration timeout);
  // Newest first, at most that many.
  absl::StatusOr<std::vector<reward::v1::Job>> ListJobs(int limit);
  absl::StatusOr<ScoredImages> JobResults(const std::string& name);
  absl::StatusOr<reward::v1::Job> CancelJob(const std::string& name);

 private:
  explicit RewardSession(const Options& options) : options_(options) {}

  absl::Status CheckScorer(const std::string& scorer,
                           const std::vector<ImageToScore>& images) const;
  // One try of Submit.
  absl::Status Upload(const std::string& scorer, const std::string& request_id,
                      const std::vector<ImageToScore>& images, absl::Time deadline,
                      reward::v1::Job* job);
  absl::Status Retry(const std::string& what, absl::Duration timeout,
                     const std::function<grpc::Status(grpc::ClientContext*)>& call) const;
  // The error with the server's address and what may help.
  absl::Status Explain(const absl::Status& error) const;

  const Options options_;
  std::unique_ptr<reward::v1::RewardService::Stub> service_;
  std::unique_ptr<reward::v1::RewardJobs::Stub> jobs_;
  std::vector<reward::v1::Scorer> scorers_;
};

// `jobs/NAME` for NAME too.
std::string FullJobName(const std::string& name);

}  // namespace ddpo
