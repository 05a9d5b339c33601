#include "learner/policy_trainer_factory.h"

#include <ATen/Parallel.h>

#include <utility>

#include "common/base/files.h"
#include "common/base/logging.h"
#include "common/base/status_macros.h"
#include "common/diffusion/pipeline.h"
#include "learner/ddpo_trainer.h"
#include "learner/rank_mean.h"

namespace ddpo {
namespace {

// Those of the paper's JAX code where the configuration leaves them to the objective.
int InnerEpochs(const config::v1::TrainingConfig& training) {
  if (training.inner_epochs() > 0) return training.inner_epochs();
  if (training.objective() == "rwr") return 5;
  if (training.objective() == "rwr_sparse") return 50;
  return 1;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PolicyTrainer>> CreatePolicyTrainer(const config::v1::Config& config,
                                                                   Collective* collective) {
  const auto& training = config.training();
  at::set_num_threads(config.cluster().threads_per_process());
  LogInfo("LibTorch uses ", at::get_num_threads(), " thread(s), for ",
          training.parallel_backwards(), " backward passes side by side");
  DDPO_ASSIGN_OR_RETURN(const std::string dir, FindResource(config.model()));
  DDPO_ASSIGN_OR_RETURN(const NetworkOptions network,
                        ParseNetworkOptions(training.dtype(), training.device()));
  DDPO_ASSIGN_OR_RETURN(std::unique_ptr<Pipeline> pipeline, Pipeline::Load(dir, network));

  DdpoTrainerOptions options;
  options.step.objective = {.name = training.objective(),
                            .num_steps = config.sampling().num_steps(),
                            .eta = config.sampling().eta(),
                            .clip_range = training.clip_range(),
                            .adv_clip = training.adv_clip(),
                            .kl_coefficient = training.kl_coefficient(),
                            .decoupled = training.decoupled(),
                            .max_behaviour_weight = training.max_behaviour_weight()};
  options.step.guidance_scale = config.sampling().guidance_scale();
  options.step.minibatch_size = training.minibatch_size();
  options.step.max_grad_norm = training.max_grad_norm();
  options.step.detach_unconditional = training.detach_unconditional();
  options.policy.optimizer = {.learning_rate = training.learning_rate(),
                              .beta1 = training.adam_beta1(),
                              .beta2 = training.adam_beta2(),
                              .epsilon = training.adam_epsilon(),
                              .weight_decay = training.weight_decay()};
  options.policy.warmup_steps = training.warmup_steps();
  options.policy.ema_decay = training.ema_decay();
  options.gradient_accumulation = training.gradient_accumulation();
  options.inner_epochs = InnerEpochs(training);
  options.timestep_fraction = training.timestep_fraction();
  options.skip_last_steps = training.skip_last_steps();
  options.lora_rank = training.lora_rank();
  options.lora_alpha = training.lora_alpha();
  options.full_finetuning = training.full_finetuning();
  options.gradient_checkpointing = training.gradient_checkpointing();
  options.parallel_backwards = training.parallel_backwards();
  options.run_seed = config.run().seed();
  options.rank = collective->rank();
  options.rank_mean = RankMean(collective);
  return CreateDdpoTrainer(options, std::move(pipeline));
}

}  // namespace ddpo
