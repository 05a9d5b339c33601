#include "common/config/same_run.h"

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/config/config.h"

namespace ddpo {
namespace {

int64_t StepSamples(const config::v1::Config& config) {
  return static_cast<int64_t>(config.training().minibatch_size()) *
         config.training().gradient_accumulation() * config.cluster().learner_ranks();
}

}  // namespace

absl::Status CheckSameRun(const config::v1::Config& before, const config::v1::Config& after) {
  config::v1::Config allowed = before;
  allowed.set_model(after.model());
  allowed.mutable_run()->set_epochs(after.run().epochs());
  allowed.mutable_run()->set_save_every(after.run().save_every());
  config::v1::ClusterConfig& cluster = *allowed.mutable_cluster();
  cluster.set_learner_ranks(after.cluster().learner_ranks());
  cluster.set_rank_timeout_seconds(after.cluster().rank_timeout_seconds());
  cluster.set_actors(after.cluster().actors());
  cluster.set_reward_servers(after.cluster().reward_servers());
  cluster.set_listen_host(after.cluster().listen_host());
  cluster.set_lease_seconds(after.cluster().lease_seconds());
  cluster.set_actor_stall_seconds(after.cluster().actor_stall_seconds());
  cluster.set_max_task_attempts(after.cluster().max_task_attempts());
  config::v1::TrainingConfig& training = *allowed.mutable_training();
  training.set_parallel_backwards(after.training().parallel_backwards());
  training.set_gradient_checkpointing(after.training().gradient_checkpointing());
  if (before.cluster().learner_ranks() != after.cluster().learner_ranks()) {
    training.set_minibatch_size(after.training().minibatch_size());
    training.set_gradient_accumulation(after.training().gradient_accumulation());
  }
  *allowed.mutable_evaluation() = after.evaluation();
  *allowed.mutable_reward_server() = after.reward_server();
  *allowed.mutable_checkpoint() = after.checkpoint();
  *allowed.mutable_security() = after.security();
  const auto differences = ConfigDifferences(allowed, after);
  if (differences.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrJoin(differences, "; "));
}

std::string DescribeRankChange(const config::v1::Config& before, const config::v1::Config& after) {
  if (before.cluster().learner_ranks() == after.cluster().learner_ranks()) return "";
  std::string text =
      absl::StrCat("cluster.learner_ranks: ", before.cluster().learner_ranks(), " → ",
                   after.cluster().learner_ranks(), ": an optimizer step takes ");
  const int64_t samples = after.sampling().samples_per_epoch();
  if (StepSamples(before) == StepSamples(after)) {
    absl::StrAppend(&text, StepSamples(after), " samples as before, but other ones");
  } else {
    absl::StrAppend(&text, StepSamples(after),
                    " samples (minibatch_size × gradient_accumulation × ",
                    "learner_ranks), before it took ", StepSamples(before),
                    ", and a pass over an epoch's samples ", samples / StepSamples(after),
                    " optimizer steps, before it took ", samples / StepSamples(before));
  }
  return absl::StrCat(text, "; so the weights will not be those of a run that kept its ranks");
}

}  // namespace ddpo
