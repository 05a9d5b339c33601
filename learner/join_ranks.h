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
};

// The group of cluster.learner_ranks ranks. Rank 0 counts the run's generation in its folder,
// durable before anyone hears of it, so that no two starts speak with the same number. Waits for
// all ranks. Null where all of the run is written and the others do not come within a minute: then
// this rank 0 died after they had ended, and has nothing to do. INVALID_ARGUMENT for options that
// cannot be; other errors are those of CreateCollective and of the folder.
absl::StatusOr<std::unique_ptr<Collective>> JoinRanks(const RankOptions& options,
                                                      const config::v1::Config& config,
                                                      const std::string& run_dir);

}  // namespace ddpo
