#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "actor/reward_client.h"
#include "actor/sampler.h"
#include "common/base/random.h"
#include "common/base/sha256.h"
#include "learner/collective/collective.h"
#include "learner/policy_trainer.h"

namespace ddpo::testing {

// A trainer whose weights are a hash of all that it and the other ranks were ever given, in order
// of task and sample: two runs end with the same bytes only if every number of every sample came
// once.
class HashingTrainer : public PolicyTrainer {
 public:
  // Without a collective it is the only rank.
  explicit HashingTrainer(Collective* collective = nullptr) : collective_(collective) {}

  std::vector<int64_t> LatentShape() const override { return {1, 1, 2}; }

  absl::StatusOr<UpdateMetrics> TrainEpoch(absl::Span<const TrainingSample> samples,
                                           absl::Span<const double> advantages,
                                           int64_t epoch) override {
    if (!training_error_.ok()) return training_error_;
    std::string lines;
    for (size_t i = 0; i < samples.size(); ++i) {
      const TrainingSample& sample = samples[i];
      std::string seen = absl::StrCat(sample.prompt, " v", sample.policy_version, " ");
      Append(sample.latents.data(), sample.latents.size() * sizeof(float), &seen);
      Append(sample.log_probs.data(), sample.log_probs.size() * sizeof(float), &seen);
      Append(&sample.reward, sizeof(double), &seen);
      Append(&advantages[i], sizeof(double), &seen);
      staleness_.push_back(epoch - sample.policy_version);
      absl::StrAppend(&lines, sample.task_id, "/", sample.sample_index, " ", Sha256Hex(seen), "\n");
    }
    absl::StatusOr<std::string> all_lines = LinesOfAllRanks(lines);
    if (!all_lines.ok()) return all_lines.status();
    weights_ = Sha256Hex(absl::StrCat(weights_, " epoch ", epoch, "\n", *all_lines, fault_));
    UpdateMetrics metrics;
    metrics.loss = static_cast<double>(weights_[0]);
    metrics.weights_changed = !seems_idle_;
    metrics.optimizer_steps = 1;
    return metrics;
  }
  absl::StatusOr<std::string> SerializePolicy() const override {
    if (!policy_error_.ok()) return policy_error_;
    return absl::StrCat("policy ", weights_, std::string(padding_, '.'));
  }
  absl::StatusOr<std::string> SerializeState() const override { return weights_; }
  absl::Status RestoreState(const std::string& bytes) override {
    weights_ = bytes;
    return absl::OkStatus();
  }

  // How many versions each sample was behind its epoch.
  const std::vector<int64_t>& staleness() const { return staleness_; }
  // Makes policies larger than one chunk.
  void PadPolicies(size_t bytes) { padding_ = bytes; }
  // Says after each epoch that no weight has changed.
  void SeemIdle() { seems_idle_ = true; }
  void FailPolicies(absl::Status error) { policy_error_ = std::move(error); }
  void FailTraining(absl::Status error) { training_error_ = std::move(error); }
  // Computes other weights than it should from now on.
  void ComputeWrongly() { fault_ = "a flipped bit"; }

 private:
  absl::StatusOr<std::string> LinesOfAllRanks(const std::string& mine) {
    if (collective_ == nullptr) return mine;
    const auto ranks = collective_->AllGather(mine);
    if (!ranks.ok()) return ranks.status();
    std::vector<std::string> lines;
    for (const std::string& rank : *ranks) {
      for (const auto line : absl::StrSplit(rank, '\n', absl::SkipEmpty())) {
        lines.emplace_back(line);
      }
    }
    std::sort(lines.begin(), lines.end());
    return absl::StrCat(absl::StrJoin(lines, "\n"), "\n");
  }

  static void Append(const void* data, size_t size, std::string* out) {
    out->append(static_cast<const char*>(data), size);
  }

  Collective* const collective_;
  std::string weights_ = "fresh";
  std::string fault_;
  absl::Status training_error_;
  std::vector<int64_t> staleness_;
  size_t padding_ = 0;
  bool seems_idle_ = false;
  absl::Status policy_error_;
};

// Makes trajectories of two steps and 1×1×2 latents that follow from prompt, seed and policy.
class HashingSampler : public Sampler {
 public:
  static constexpr int kSteps = 2;
  static constexpr int kLatent = 2;

  absl::Status SetPolicy(const std::string& safetensors) override {
    policy_ = Sha256Hex(safetensors);
    return absl::OkStatus();
  }
  absl::StatusOr<SampledBatch> Sample(const std::vector<std::string>& prompts,
                                      const std::vector<uint64_t>& seeds,
                                      const std::function<bool()>& cancelled) override {
    if (cancelled()) return absl::CancelledError("cancelled");
    SampledBatch batch{.num_steps = kSteps,
                       .latent_channels = 1,
                       .latent_height = 1,
                       .latent_width = kLatent,
                       .samples = {}};
    for (size_t i = 0; i < prompts.size(); ++i) {
      uint64_t state = DeriveSeed(seeds[i], absl::StrCat(policy_, prompts[i]));
      const auto next = [&state] {
        state = SplitMix64(state);
        return static_cast<float>(state % 1000) / 1000;
      };
      SampledTrajectory& sample = batch.samples.emplace_back();
      for (int j = 0; j < (kSteps + 1) * kLatent; ++j) sample.latents.push_back(next());
      for (int j = 0; j < kSteps; ++j) sample.log_probs.push_back(-next());
      sample.image = Image{.width = 1, .height = 1, .rgb = {static_cast<uint8_t>(state), 0, 0}};
    }
    return batch;
  }

 private:
  std::string policy_;
};

// A reward that follows from image and prompt.
inline absl::StatusOr<std::vector<RewardResult>> HashReward(absl::Span<const Image> images,
                                                            absl::Span<const std::string> prompts,
                                                            const std::function<bool()>&) {
  std::vector<RewardResult> results;
  for (size_t i = 0; i < images.size(); ++i) {
    RewardResult& result = results.emplace_back();
    result.value = static_cast<double>(DeriveSeed(images[i].rgb[0], prompts[i]) % 100);
    result.details["parts"] = 1;
  }
  return results;
}

}  // namespace ddpo::testing
