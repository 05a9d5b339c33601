#include "learner/join_ranks.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/address.h"
#include "common/base/logging.h"
#include "common/base/status_macros.h"
#include "learner/checkpoint.h"
#include "learner/run_files.h"

namespace ddpo {
namespace {

// For the other ranks of a run that is complete, which may have been started once more as well.
constexpr absl::Duration kCompletePatience = absl::Minutes(1);

// Whether all of the run is written.
bool IsComplete(const config::v1::Config& config, const std::string& run_dir) {
  const RunFiles files(run_dir, config.training().full_finetuning());
  const auto epochs = CheckpointStore(files.checkpoints_dir(), {}).NewestEpochs();
  return epochs.ok() && *epochs >= config.run().epochs() && files.HasFinalPolicy();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Collective>> JoinRanks(const RankOptions& options,
                                                      const config::v1::Config& config,
                                                      const std::string& run_dir) {
  CollectiveOptions collective;
  collective.rank = options.rank;
  collective.size = config.cluster().learner_ranks();
  if (options.rank < 0 || options.rank >= collective.size) {
    return absl::InvalidArgumentError(
        absl::StrCat("--rank ", options.rank, ": cluster.learner_ranks is ", collective.size));
  }
  if (collective.size > 1) {
    if (options.store.empty()) {
      return absl::InvalidArgumentError(
          "--store: has to say where the ranks meet, as cluster.learner_ranks is more than 1");
    }
    DDPO_ASSIGN_OR_RETURN(const HostPort store, ParseHostPort(options.store));
    collective.store_host = store.host;
    collective.store_port = static_cast<uint16_t>(store.port);
    if (!options.store_listen.empty() && options.rank == 0) {
      DDPO_ASSIGN_OR_RETURN(const HostPort listen, ParseHostPort(options.store_listen));
      collective.store_listen_host = listen.host;
      collective.store_port = static_cast<uint16_t>(listen.port);
    }
  }
  collective.backend = config.training().device() == "cuda" ? "nccl" : "gloo";
  collective.listen_host = options.listen_host;
  collective.timeout = absl::Seconds(config.cluster().rank_timeout_seconds());
  bool complete = false;
  if (options.rank == 0) {
    RunFiles files(run_dir, config.training().full_finetuning());
    DDPO_RETURN_IF_ERROR(files.Prepare());
    DDPO_ASSIGN_OR_RETURN(collective.generation, files.NextGeneration());
    complete = IsComplete(config, run_dir);
    if (complete) {
      collective.meeting_timeout = std::min(collective.timeout, kCompletePatience);
    }
  }
  if (collective.size > 1) {
    LogInfo("rank ", options.rank, " meets the other ", collective.size - 1, " at ", options.store);
  }
  auto group = CreateCollective(collective);
  if (complete && absl::IsUnavailable(group.status())) {
    LogInfo("the run is complete, and the other ranks are gone: ", group.status().message());
    return nullptr;
  }
  return group;
}

}  // namespace ddpo
