#include "learner/epoch_rewards.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "ddpo/cluster/v1/ranks.pb.h"
#include "learner/rank_exchange.h"

namespace ddpo {
namespace {

// The digest that all ranks name, except those that name none.
absl::StatusOr<std::string> CommonScorer(const std::vector<cluster::v1::RankRewards>& ranks) {
  size_t first = 0;
  while (first < ranks.size() && ranks[first].scorer_digest().empty()) ++first;
  if (first == ranks.size()) return "";
  for (size_t rank = first + 1; rank < ranks.size(); ++rank) {
    const std::string& digest = ranks[rank].scorer_digest();
    if (digest.empty() || digest == ranks[first].scorer_digest()) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        "rank ", first, " has rewards of a scorer with digest `", ranks[first].scorer_digest(),
        "`, rank ", rank, " of one with `", digest, "`: they are not comparable"));
  }
  return ranks[first].scorer_digest();
}

}  // namespace

absl::StatusOr<EpochRewards> GatherRewards(Collective& collective,
                                           absl::Span<const TrainingSample> samples,
                                           const std::string& scorer_digest) {
  cluster::v1::RankRewards mine;
  mine.set_scorer_digest(scorer_digest);
  for (const TrainingSample& sample : samples) {
    cluster::v1::RewardedSample& rewarded = *mine.add_samples();
    rewarded.set_task_id(sample.task_id);
    rewarded.set_sample_index(sample.sample_index);
    rewarded.set_prompt(sample.prompt);
    rewarded.set_policy_version(sample.policy_version);
    rewarded.set_reward(sample.reward);
    rewarded.mutable_reward_details()->insert(sample.reward_details.begin(),
                                              sample.reward_details.end());
    rewarded.mutable_seconds()->insert(sample.actor_seconds.begin(), sample.actor_seconds.end());
  }
  DDPO_ASSIGN_OR_RETURN(const std::vector<cluster::v1::RankRewards> ranks,
                        GatherFromRanks(collective, mine));
  std::vector<std::pair<const cluster::v1::RewardedSample*, int>> all;  // with their rank
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    for (const auto& sample : ranks[rank].samples()) {
      all.emplace_back(&sample, static_cast<int>(rank));
    }
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
    return std::forward_as_tuple(a.first->task_id(), a.first->sample_index()) <
           std::forward_as_tuple(b.first->task_id(), b.first->sample_index());
  });
  EpochRewards rewards;
  DDPO_ASSIGN_OR_RETURN(rewards.scorer_digest, CommonScorer(ranks));
  if (!all.empty()) rewards.oldest_policy = all.front().first->policy_version();
  for (const auto& [sample, rank] : all) {
    if (rank == collective.rank()) rewards.mine.push_back(rewards.rewards.size());
    rewards.prompts.push_back(sample->prompt());
    rewards.rewards.push_back(sample->reward());
    // In the ranks' common order, so that the sums have the same bits for any number of ranks.
    for (const auto& [name, value] : sample->reward_details()) {
      rewards.reward_details[name] += value;
    }
    for (const auto& [phase, value] : sample->seconds()) rewards.actor_seconds[phase] += value;
    rewards.oldest_policy = std::min(rewards.oldest_policy, sample->policy_version());
  }
  return rewards;
}

}  // namespace ddpo
