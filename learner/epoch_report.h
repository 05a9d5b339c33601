#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "common/metrics/learner_metrics.h"
#include "ddpo/cluster/v1/ranks.pb.h"
#include "learner/epoch_rewards.h"
#include "learner/policy_trainer.h"

namespace ddpo {

// What an epoch came to, over all ranks.
struct EpochReport {
  int64_t epoch = 0;
  int64_t epochs_total = 0;
  EpochRewards rewards;
  UpdateMetrics update;
  int64_t staleness = 0;
  // Of this rank.
  double collect_seconds = 0, advantage_seconds = 0, update_seconds = 0, publish_seconds = 0;
  // Of the checkpoint before this epoch: a checkpoint's own epoch has its line already.
  double checkpoint_seconds = 0;
  double elapsed_seconds = 0;  // of the run
  cluster::v1::Ledger ledger;
};

cluster::v1::RankUpdate ToRankUpdate(const UpdateMetrics& update);
// The update of all ranks together: means over the ranks, whose shares are equal.
UpdateMetrics MergeUpdates(absl::Span<const cluster::v1::RankUpdate> ranks);

// The epoch's line of metrics.jsonl.
std::string EpochLine(const EpochReport& report);
// Sets the metrics that are of the last epoch, and counts its phases.
void ExportEpoch(const EpochReport& report, LearnerMetrics& metrics);
// A line for the log.
std::string EpochText(const EpochReport& report);

}  // namespace ddpo
