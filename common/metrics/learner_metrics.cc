#include "common/metrics/learner_metrics.h"

#include "common/metrics/buckets.h"
#include "common/metrics/families.h"

namespace ddpo {
namespace {

prometheus::Gauge& Actors(prometheus::Registry& registry, const std::string& lag) {
  return GaugeFamily(registry, "ddpo_learner_actors",
                     "Actors heard of within a lease's time or 30 s, by how many policy versions "
                     "they are behind the newest.")
      .Add({{"lag", lag}});
}

}  // namespace

LearnerMetrics::LearnerMetrics(prometheus::Registry& r)
    : generation(GaugeFamily(r, "ddpo_learner_generation",
                             "How often the run's learner has started, this start included.")
                     .Add({})),
      epoch(GaugeFamily(r, "ddpo_learner_epoch", "Epoch that is sampled or trained, from 0.")
                .Add({})),
      epochs_target(
          GaugeFamily(r, "ddpo_learner_epochs_target", "Epochs after which the run is complete.")
              .Add({})),
      policy_version(
          GaugeFamily(r, "ddpo_learner_policy_version", "Newest published policy version.")
              .Add({})),
      samples_received(CounterFamily(r, "ddpo_learner_samples_received_total",
                                     "Samples that actors delivered, duplicates included.")
                           .Add({})),
      samples_trained(
          CounterFamily(r, "ddpo_learner_samples_trained_total", "Samples that an update has used.")
              .Add({})),
      samples_dropped(CounterFamily(r, "ddpo_learner_samples_dropped_total",
                                    "Samples that were not used, by reason."),
                      "reason",
                      {"duplicate", "stale_generation", "unknown_task", "malformed", "other_scorer",
                       "discarded_at_stop"}),
      samples_buffered(GaugeFamily(r, "ddpo_learner_samples_buffered",
                                   "Samples taken over that wait for their epoch's update.")
                           .Add({})),
      reward_mean(GaugeFamily(r, "ddpo_learner_reward_mean",
                              "Mean reward of the last epoch's samples, in the reward's unit.")
                      .Add({})),
      reward_stddev(GaugeFamily(r, "ddpo_learner_reward_stddev",
                                "Standard deviation of the last epoch's rewards.")
                        .Add({})),
      near_constant_ratio(GaugeFamily(r, "ddpo_learner_near_constant_ratio",
                                      "Part of the last epoch's images that were nearly one "
                                      "colour, 0 to 1.")
                              .Add({})),
      loss(GaugeFamily(r, "ddpo_learner_loss", "Mean loss of the last update.").Add({})),
      approx_kl(GaugeFamily(r, "ddpo_learner_approx_kl",
                            "Half the mean squared log-ratio of the last update.")
                    .Add({})),
      clip_fraction(GaugeFamily(r, "ddpo_learner_clip_fraction",
                                "Part of the last update's ratios outside the clip range, 0 to 1.")
                        .Add({})),
      ratio_mean(
          GaugeFamily(r, "ddpo_learner_ratio_mean", "Mean policy ratio of the last update; near 1.")
              .Add({})),
      logprob_abs_diff_max(
          GaugeFamily(r, "ddpo_learner_logprob_abs_diff_max",
                      "Largest difference between an actor's log-probability and the learner's at "
                      "the same weights, in the last update; 0 with unmerged LoRA on the CPU.")
              .Add({})),
      grad_norm(GaugeFamily(r, "ddpo_learner_grad_norm",
                            "Gradient norm before clipping, mean over the last update's steps.")
                    .Add({})),
      staleness_max(GaugeFamily(r, "ddpo_learner_staleness_max",
                                "Most policy versions that a sample of the last update was behind "
                                "its epoch.")
                        .Add({})),
      staleness_bound(GaugeFamily(r, "ddpo_learner_staleness_bound",
                                  "What ddpo_learner_staleness_max may be at most: "
                                  "training.max_staleness.")
                          .Add({})),
      optimizer_steps(
          CounterFamily(r, "ddpo_learner_optimizer_steps_total", "Optimizer steps.").Add({})),
      weights_unchanged(CounterFamily(r, "ddpo_learner_weights_unchanged_total",
                                      "Updates after which every weight was the same as before.")
                            .Add({})),
      non_finite_refused(CounterFamily(r, "ddpo_learner_non_finite_refused_total",
                                       "Updates and policies that were refused because a loss, a "
                                       "gradient or a weight was not finite.")
                             .Add({})),
      run_failures(
          CounterFamily(r, "ddpo_learner_run_failures_total",
                        "Starts of the run that ended with an error, by reason: non_finite "
                        "(a loss, gradient or weight), tasks (one failed too often), ranks "
                        "(one died or hung), weights (the ranks' differed) or other. Kept in "
                        "the run's folder."),
          "reason", {"non_finite", "tasks", "ranks", "weights"}),
      phase_seconds(HistogramFamily(r, "ddpo_learner_phase_seconds",
                                    "Seconds that a phase of an epoch took."),
                    "phase", {"collect", "advantages", "update", "publish", "checkpoint"}, {},
                    PhaseSeconds()),
      idle_seconds(CounterFamily(r, "ddpo_learner_idle_seconds_total",
                                 "Seconds in which the learner waited, by what it waited for."),
                   "cause", {"samples", "ranks", "actors"}),
      progress_timestamp(GaugeFamily(r, "ddpo_learner_progress_timestamp_seconds",
                                     "Unix time at which the learner last took a sample over, "
                                     "trained an epoch or published.")
                             .Add({})),
      checkpoint_timestamp(GaugeFamily(r, "ddpo_learner_checkpoint_timestamp_seconds",
                                       "Unix time of the newest checkpoint that this start wrote; "
                                       "0 before the first.")
                               .Add({})),
      checkpoint_epochs(GaugeFamily(r, "ddpo_learner_checkpoint_epochs",
                                    "Epochs that the newest checkpoint holds.")
                            .Add({})),
      checkpoint_interval_epochs(GaugeFamily(r, "ddpo_learner_checkpoint_interval_epochs",
                                             "Epochs from one checkpoint to the next: "
                                             "checkpoint.every_epochs.")
                                     .Add({})),
      leases_outstanding(
          GaugeFamily(r, "ddpo_learner_leases_outstanding", "Tasks that actors hold.").Add({})),
      leases_expired(CounterFamily(r, "ddpo_learner_leases_expired_total",
                                   "Leases that ended without their task being done.")
                         .Add({})),
      tasks_failed(CounterFamily(r, "ddpo_learner_tasks_failed_total",
                                 "Tasks that actors gave back with an error.")
                       .Add({})),
      actors_expected(GaugeFamily(r, "ddpo_learner_actors_expected",
                                  "Actors that the configuration names: cluster.actors.")
                          .Add({})),
      actors_lag_0_(Actors(r, "0")),
      actors_lag_1_(Actors(r, "1")),
      actors_lag_2_(Actors(r, "2+")) {}

void LearnerMetrics::SetActors(absl::Span<const int64_t> acknowledged_versions,
                               int64_t newest_version) {
  int counts[3] = {0, 0, 0};
  for (const int64_t version : acknowledged_versions) {
    const int64_t lag = version < 0 ? 2 : newest_version - version;
    ++counts[lag <= 0 ? 0 : lag == 1 ? 1 : 2];
  }
  actors_lag_0_.Set(counts[0]);
  actors_lag_1_.Set(counts[1]);
  actors_lag_2_.Set(counts[2]);
}

}  // namespace ddpo
