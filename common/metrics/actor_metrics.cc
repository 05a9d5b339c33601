#include "common/metrics/actor_metrics.h"

#include "common/metrics/buckets.h"
#include "common/metrics/families.h"

namespace ddpo {

ActorMetrics::ActorMetrics(prometheus::Registry& r)
    : policy_version(
          GaugeFamily(r, "ddpo_actor_policy_version", "Policy version that it samples with.")
              .Add({})),
      policies_refused(CounterFamily(r, "ddpo_actor_policies_refused_total",
                                     "Policies whose bytes were not what the learner announced.")
                           .Add({})),
      samples(CounterFamily(r, "ddpo_actor_samples_total", "Images that were denoised.").Add({})),
      samples_redelivered(CounterFamily(r, "ddpo_actor_samples_redelivered_total",
                                        "Samples sent again because their ack never came.")
                              .Add({})),
      tasks(CounterFamily(r, "ddpo_actor_tasks_total",
                          "Tasks that ended, by outcome: delivered, failed (given back) or lost "
                          "(its lease went to another)."),
            "outcome", {"delivered", "failed", "lost"}),
      phase_seconds(
          HistogramFamily(r, "ddpo_actor_phase_seconds", "Seconds that a phase of one batch took."),
          "phase", {"denoise", "decode", "reward", "deliver"}, {}, PhaseSeconds()),
      idle_seconds(CounterFamily(r, "ddpo_actor_idle_seconds_total",
                                 "Seconds in which the sampler waited, by what it waited for: a "
                                 "task, its policy, or the rewards or the delivery of batches "
                                 "before."),
                   "cause", {"task", "policy", "reward", "delivery"}),
      reward_failures(CounterFamily(r, "ddpo_actor_reward_failures_total",
                                    "Samples for which no reward came, retries included.")
                          .Add({})),
      queue_depth(GaugeFamily(r, "ddpo_actor_queue_depth",
                              "Denoised batches that wait for rewards or acks.")
                      .Add({})) {}

}  // namespace ddpo
