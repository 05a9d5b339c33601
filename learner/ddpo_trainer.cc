#include "learner/ddpo_trainer.h"

#include <algorithm>
#include <exception>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/nn/lora.h"
#include "common/tensors/safetensors.h"
#include "learner/epoch_tensors.h"
#include "learner/epoch_update.h"
#include "learner/gradient_workers.h"
#include "learner/policy_gradient_epoch.h"
#include "learner/rwr_epoch.h"
#include "learner/trainable_policy.h"

namespace ddpo {
namespace {

constexpr char kStateFormat[] = "ddpo_trainer_state.v1";

absl::Status CheckOptions(const DdpoTrainerOptions& options) {
  const std::pair<const char*, int> counts[] = {
      {"minibatch_size", options.step.minibatch_size},
      {"gradient_accumulation", options.gradient_accumulation},
      {"inner_epochs", options.inner_epochs},
      {"lora_rank", options.lora_rank},
      {"parallel_backwards", options.parallel_backwards},
  };
  for (const auto& [name, value] : counts) {
    if (value < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("trainer: ", name, " is ", value, ", expected at least 1"));
    }
  }
  if (!(options.timestep_fraction > 0 && options.timestep_fraction <= 1)) {
    return absl::InvalidArgumentError(absl::StrCat("trainer: timestep_fraction is ",
                                                   options.timestep_fraction,
                                                   ", expected more than 0 and at most 1"));
  }
  if (options.skip_last_steps < 0 || options.skip_last_steps >= options.step.objective.num_steps) {
    return absl::InvalidArgumentError(
        absl::StrCat("trainer: skip_last_steps is ", options.skip_last_steps, " of ",
                     options.step.objective.num_steps, " denoising steps"));
  }
  if (!(options.policy.ema_decay >= 0 && options.policy.ema_decay < 1)) {
    return absl::InvalidArgumentError(absl::StrCat("trainer: ema_decay is ",
                                                   options.policy.ema_decay,
                                                   ", expected at least 0 and less than 1"));
  }
  if (options.full_finetuning && options.step.objective.kl_coefficient > 0) {
    return absl::InvalidArgumentError(
        "trainer: kl_coefficient with full_finetuning, which keeps no base model to compare with");
  }
  return absl::OkStatus();
}

double LoraAlpha(const DdpoTrainerOptions& options) {
  return options.lora_alpha > 0 ? options.lora_alpha : options.lora_rank;
}

bool IsRwr(const DdpoTrainerOptions& options) {
  return options.step.objective.name == "rwr" || options.step.objective.name == "rwr_sparse";
}

std::unique_ptr<EpochUpdate> MakeUpdate(const DdpoTrainerOptions& options,
                                        const Pipeline& pipeline) {
  if (IsRwr(options)) {
    RwrEpochOptions rwr;
    rwr.step = options.step;
    rwr.step.all_reduce = options.rank_mean;
    rwr.num_steps = options.step.objective.num_steps;
    rwr.gradient_accumulation = options.gradient_accumulation;
    rwr.inner_epochs = options.inner_epochs;
    rwr.run_seed = options.run_seed;
    rwr.rank = options.rank;
    return std::make_unique<RwrEpoch>(rwr, pipeline);
  }
  PolicyGradientEpochOptions gradient;
  gradient.step = options.step;
  gradient.step.all_reduce = options.rank_mean;
  gradient.gradient_accumulation = options.gradient_accumulation;
  gradient.inner_epochs = options.inner_epochs;
  gradient.timestep_fraction = options.timestep_fraction;
  gradient.skip_last_steps = options.skip_last_steps;
  gradient.run_seed = options.run_seed;
  gradient.rank = options.rank;
  return std::make_unique<PolicyGradientEpoch>(gradient, pipeline);
}

// The options without which a state has no meaning.
nlohmann::json StateOptions(const DdpoTrainerOptions& options) {
  nlohmann::json json = {{"objective", options.step.objective.name},
                         {"full_finetuning", options.full_finetuning},
                         {"ema_decay", options.policy.ema_decay},
                         {"run_seed", options.run_seed}};
  if (!options.full_finetuning) {
    json["lora_rank"] = options.lora_rank;
    json["lora_alpha"] = LoraAlpha(options);
  }
  return json;
}

absl::Status CheckSameOptions(const SafetensorsContents& state, const nlohmann::json& expected) {
  const auto format = state.metadata.find("format");
  if (format == state.metadata.end() || format->second != kStateFormat) {
    return absl::InvalidArgumentError(
        absl::StrCat("trainer state: metadata `format` is not ", kStateFormat));
  }
  const auto options = state.metadata.find("options");
  const auto found = nlohmann::json::parse(options == state.metadata.end() ? "" : options->second,
                                           nullptr, /*allow_exceptions=*/false);
  if (!found.is_object()) {
    return absl::InvalidArgumentError("trainer state: metadata `options` is not a JSON object");
  }
  std::vector<std::string> differences;
  for (const auto& [key, value] : expected.items()) {
    const nlohmann::json other = found.value(key, nlohmann::json());
    if (other != value) {
      differences.push_back(absl::StrCat(key, " is ", other.dump(), ", expected ", value.dump()));
    }
  }
  if (differences.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("trainer state: ", absl::StrJoin(differences, "; ")));
}

bool Equal(const NamedTensors& a, const NamedTensors& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.first == y.first && at::equal(x.second, y.second);
  });
}

class DdpoTrainer : public PolicyTrainer {
 public:
  DdpoTrainer(const DdpoTrainerOptions& options, std::unique_ptr<Pipeline> pipeline)
      : options_(options),
        pipeline_(std::move(pipeline)),
        update_(MakeUpdate(options, *pipeline_)),
        policy_(MakePolicy(options, pipeline_->unet())),
        workers_(options.parallel_backwards) {
    pipeline_->unet().set_gradient_checkpointing(options.gradient_checkpointing);
  }

  std::vector<int64_t> LatentShape() const override { return pipeline_->LatentShape(); }

  absl::StatusOr<UpdateMetrics> TrainEpoch(absl::Span<const TrainingSample> samples,
                                           absl::Span<const double> advantages,
                                           int64_t epoch) override {
    if (samples.empty() || samples.size() != advantages.size()) {
      return absl::InvalidArgumentError(absl::StrCat("epoch ", epoch, ": ", samples.size(),
                                                     " samples and ", advantages.size(),
                                                     " advantages, expected as many of each"));
    }
    try {
      const NamedTensors before = policy_.Copy();
      absl::StatusOr<UpdateMetrics> result =
          update_->Run({samples, advantages, epoch}, workers_, policy_);
      if (!result.ok()) {
        return absl::Status(result.status().code(),
                            absl::StrCat("epoch ", epoch, ", ", result.status().message()));
      }
      result->weights_changed = !Equal(before, policy_.Copy());
      return result;
    } catch (const std::exception& error) {
      return absl::InternalError(absl::StrCat("epoch ", epoch, ": ", error.what()));
    }
  }

  absl::StatusOr<double> LogProbDifference(absl::Span<const TrainingSample> samples,
                                           const std::string& policy, int64_t epoch) override {
    if (options_.full_finetuning || IsRwr(options_)) {
      return absl::UnimplementedError("no log-probabilities of an older policy");
    }
    try {
      DDPO_ASSIGN_OR_RETURN(SafetensorsContents contents, ParseSafetensors(policy));
      DDPO_ASSIGN_OR_RETURN(const LoraWeights lora,
                            LoraFromContents(pipeline_->unet(), std::move(contents)));
      const auto count = static_cast<int64_t>(
          std::min<size_t>(samples.size(), static_cast<size_t>(options_.step.minibatch_size)));
      const std::vector<double> no_weights(count);
      const int num_steps = options_.step.objective.num_steps;
      DDPO_ASSIGN_OR_RETURN(
          const EpochTensors tensors,
          EpochTensors::Create(*pipeline_, num_steps, {samples.first(count), no_weights, epoch}));
      const at::Tensor rows = at::arange(count, at::kLong);
      const at::Tensor steps = (rows + epoch).remainder(num_steps).unsqueeze(1);
      DDPO_ASSIGN_OR_RETURN(
          const at::Tensor log_probs,
          BatchLogProbs(*pipeline_, tensors.Take(rows, steps), options_.step, workers_, &lora));
      const at::Tensor sampled = tensors.log_probs.gather(1, steps.to(log_probs.device()));
      return (log_probs - sampled).abs().max().item<double>();
    } catch (const std::exception& error) {
      return absl::InternalError(absl::StrCat("epoch ", epoch, ": ", error.what()));
    }
  }

  absl::StatusOr<std::string> SerializePolicy() const override { return policy_.SerializePolicy(); }
  absl::StatusOr<std::string> SerializeFinalPolicy() const override {
    return policy_.SerializeFinalPolicy();
  }

  absl::StatusOr<std::string> SerializeState() const override {
    return policy_.SerializeState(
        {{"format", kStateFormat}, {"options", StateOptions(options_).dump()}});
  }

  absl::Status RestoreState(const std::string& bytes) override {
    DDPO_ASSIGN_OR_RETURN(const SafetensorsContents contents, ParseSafetensors(bytes));
    DDPO_RETURN_IF_ERROR(CheckSameOptions(contents, StateOptions(options_)));
    return policy_.RestoreState(contents.tensors);
  }

 private:
  static TrainablePolicy MakePolicy(const DdpoTrainerOptions& options, UNet& unet) {
    if (options.full_finetuning) return TrainablePolicy(unet, options.policy);
    return TrainablePolicy(
        RandomLora(unet, options.lora_rank, LoraAlpha(options), options.run_seed), options.policy);
  }

  const DdpoTrainerOptions options_;
  const std::unique_ptr<Pipeline> pipeline_;
  const std::unique_ptr<const EpochUpdate> update_;
  TrainablePolicy policy_;
  GradientWorkers workers_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PolicyTrainer>> CreateDdpoTrainer(
    const DdpoTrainerOptions& options, std::unique_ptr<Pipeline> pipeline) {
  DDPO_RETURN_IF_ERROR(CheckOptions(options));
  // Finds an unknown objective now, not after the first epoch's sampling.
  DDPO_RETURN_IF_ERROR(CreateObjective(options.step.objective, pipeline->scheduler()).status());
  DDPO_RETURN_IF_ERROR(pipeline->scheduler().Timesteps(options.step.objective.num_steps).status());
  try {
    return std::make_unique<DdpoTrainer>(options, std::move(pipeline));
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("trainer: ", error.what()));
  }
}

}  // namespace ddpo
