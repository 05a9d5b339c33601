#include "learner/epoch_report.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "common/base/statistics.h"

namespace ddpo {
namespace {

int64_t Samples(const EpochReport& report) {
  return static_cast<int64_t>(report.rewards.rewards.size());
}

double SamplesPerSecond(const EpochReport& report) {
  const double seconds = report.collect_seconds + report.advantage_seconds + report.update_seconds +
                         report.publish_seconds;
  return static_cast<double>(Samples(report)) / std::max(seconds, 1e-9);
}

// The scorer's parts, averaged over the samples.
nlohmann::json RewardDetails(const EpochRewards& rewards) {
  nlohmann::json details = nlohmann::json::object();
  for (const auto& [name, sum] : rewards.reward_details) {
    details[name] = sum / static_cast<double>(rewards.rewards.size());
  }
  return details;
}

nlohmann::json LedgerJson(const cluster::v1::Ledger& ledger) {
  nlohmann::json dropped = nlohmann::json::object();
  for (const auto& [reason, count] : ledger.dropped()) dropped[reason] = count;
  return {{"received", ledger.received()},
          {"trained", ledger.trained()},
          {"dropped", dropped},
          {"buffered", ledger.buffered()}};
}

}  // namespace

cluster::v1::RankUpdate ToRankUpdate(const UpdateMetrics& update) {
  cluster::v1::RankUpdate message;
  message.set_loss(update.loss);
  message.set_approx_kl(update.approx_kl);
  message.set_clip_fraction(update.clip_fraction);
  message.set_ratio_mean(update.ratio_mean);
  message.set_reference_kl(update.reference_kl);
  message.set_logprob_abs_diff_max(update.logprob_abs_diff_max);
  message.set_grad_norm(update.grad_norm);
  message.set_optimizer_steps(update.optimizer_steps);
  message.set_weights_changed(update.weights_changed);
  return message;
}

UpdateMetrics MergeUpdates(absl::Span<const cluster::v1::RankUpdate> ranks) {
  UpdateMetrics merged;
  merged.logprob_abs_diff_max = std::numeric_limits<double>::quiet_NaN();
  for (const cluster::v1::RankUpdate& rank : ranks) {
    merged.loss += rank.loss();
    merged.approx_kl += rank.approx_kl();
    merged.clip_fraction += rank.clip_fraction();
    merged.ratio_mean += rank.ratio_mean();
    merged.reference_kl += rank.reference_kl();
    // Of those ranks that measured it.
    merged.logprob_abs_diff_max =
        std::fmax(merged.logprob_abs_diff_max, rank.logprob_abs_diff_max());
    // All ranks take the same steps along the same gradient.
    merged.grad_norm = rank.grad_norm();
    merged.optimizer_steps = rank.optimizer_steps();
    merged.weights_changed = rank.weights_changed();
  }
  const auto count = static_cast<double>(ranks.size());
  merged.loss /= count;
  merged.approx_kl /= count;
  merged.clip_fraction /= count;
  merged.ratio_mean /= count;
  merged.reference_kl /= count;
  return merged;
}

std::string EpochLine(const EpochReport& report) {
  const UpdateMetrics& update = report.update;
  const nlohmann::json line = {
      {"epoch", report.epoch},
      {"policy_version", report.epoch + 1},
      {"samples_total", (report.epoch + 1) * Samples(report)},
      {"reward_mean", Mean(report.rewards.rewards)},
      {"reward_std", PopulationStddev(report.rewards.rewards)},
      {"reward_details", RewardDetails(report.rewards)},
      {"loss", update.loss},
      {"approx_kl", update.approx_kl},
      {"clip_fraction", update.clip_fraction},
      {"ratio_mean", update.ratio_mean},
      {"reference_kl", update.reference_kl},
      {"logprob_abs_diff_max", update.logprob_abs_diff_max},
      {"grad_norm", update.grad_norm},
      {"staleness_max", report.staleness},
      {"samples_per_second", SamplesPerSecond(report)},
      {"elapsed_seconds", report.elapsed_seconds},
      {"seconds",
       {{"sampling", report.collect_seconds},
        {"advantages", report.advantage_seconds},
        {"training", report.update_seconds},
        {"publishing", report.publish_seconds},
        {"checkpoint", report.checkpoint_seconds}}},
      // Of all actors together, by what they did; beside, not within, the learner's seconds.
      {"actor_seconds", report.rewards.actor_seconds},
      {"ledger", LedgerJson(report.ledger)}};
  return line.dump();
}

void ExportEpoch(const EpochReport& report, LearnerMetrics& metrics) {
  const UpdateMetrics& update = report.update;
  metrics.epoch.Set(static_cast<double>(report.epoch));
  metrics.reward_mean.Set(Mean(report.rewards.rewards));
  metrics.reward_stddev.Set(PopulationStddev(report.rewards.rewards));
  // Not there where the reward servers do not flag such images.
  metrics.near_constant_ratio.Set(RewardDetails(report.rewards).value("near_constant", 0.0));
  metrics.loss.Set(update.loss);
  metrics.approx_kl.Set(update.approx_kl);
  metrics.clip_fraction.Set(update.clip_fraction);
  metrics.ratio_mean.Set(update.ratio_mean);
  metrics.logprob_abs_diff_max.Set(update.logprob_abs_diff_max);
  metrics.grad_norm.Set(update.grad_norm);
  metrics.staleness_max.Set(static_cast<double>(report.staleness));
  metrics.optimizer_steps.Increment(static_cast<double>(update.optimizer_steps));
  if (!update.weights_changed) metrics.weights_unchanged.Increment();
  metrics.phase_seconds["collect"].Observe(report.collect_seconds);
  metrics.phase_seconds["advantages"].Observe(report.advantage_seconds);
  metrics.phase_seconds["update"].Observe(report.update_seconds);
  metrics.phase_seconds["publish"].Observe(report.publish_seconds);
}

std::string EpochText(const EpochReport& report) {
  return absl::StrFormat(
      "epoch %d of %d: reward %.4f ± %.4f, %.2f samples/s, KL %.2e, clipped %.3f", report.epoch + 1,
      report.epochs_total, Mean(report.rewards.rewards), PopulationStddev(report.rewards.rewards),
      SamplesPerSecond(report), report.update.approx_kl, report.update.clip_fraction);
}

}  // namespace ddpo
