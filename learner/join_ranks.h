#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "ddpo/config/v1/config.pb.h"
#include "learner/collective/collective.h"

namespace ddpo {

// Which rank of the learner a process is, and where the ranks meet.
struct RankOptions {
  int rank = 0;
  // HOST:PORT of the store that rank 0 serves and the ranks meet in, as this rank reaches it.
  std::string store;
  // HOST:PORT that rank 0 serves it on; empty for `store`.
  std::string store_listen;
  // Address that this rank listens on for the others.
  std::string listen_host = "127.0.0.1";
  // Index of this rank's GPU.
  int device_index = 0;
};

// Whether all of the run is written. A rank 0 that then finds nobody to meet has nothing to do: it
// died after the others had ended.
bool IsComplete(const config::v1::Config& config, const std::string& run_dir);

// The group of cluster.learner_ranks ranks. Rank 0 counts the run's generation in its folder,
// durable before anyone hears of it, so that no two starts speak with the same number. Waits for
// all ranks, in a run that is complete for a minute at most. INVALID_ARGUMENT for options that
// cannot be; other errors are those of CreateCollective and of the folder.
absl::StatusOr<std::unique_ptr<Collective>> JoinRanks(const RankOptions& options,
                                                      const config::v1::Config& config,
                                                      const std::string& run_dir);

}  // namespace ddpo
