#include <prometheus/text_serializer.h>

#include <map>
#include <memory>
#include <regex>
#include <set>
#include <string>

#include "absl/strings/match.h"
#include "common/metrics/actor_metrics.h"
#include "common/metrics/learner_metrics.h"
#include "common/metrics/reward_server_metrics.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ddpo {
namespace {

using ::testing::HasSubstr;

std::string Exposition(const prometheus::Registry& registry) {
  return prometheus::TextSerializer().Serialize(registry.Collect());
}

size_t SeriesCount(const prometheus::Registry& registry) {
  size_t count = 0;
  for (const auto& family : registry.Collect()) count += family.metric.size();
  return count;
}

TEST(MetricsTest, EverythingIsThereAtZeroFromTheStart) {
  prometheus::Registry registry;
  const LearnerMetrics learner(registry);
  const ActorMetrics actor(registry);
  const RewardServerMetrics reward_server(registry, {"jpeg_compressibility"});
  const std::string text = Exposition(registry);
  for (const char* line : {
           "ddpo_learner_epoch 0\n",
           "ddpo_learner_samples_received_total 0\n",
           "ddpo_learner_samples_dropped_total{reason=\"duplicate\"} 0\n",
           "ddpo_learner_phase_seconds_count{phase=\"update\"} 0\n",
           "ddpo_learner_idle_seconds_total{cause=\"samples\"} 0\n",
           "ddpo_learner_actors{lag=\"2+\"} 0\n",
           "ddpo_learner_weights_unchanged_total 0\n",
           "ddpo_actor_phase_seconds_count{phase=\"denoise\"} 0\n",
           "ddpo_actor_reward_failures_total 0\n",
           "ddpo_reward_requests_total{code=\"OK\",scorer=\"jpeg_compressibility\"} 0\n",
           "ddpo_reward_requests_total{code=\"RESOURCE_EXHAUSTED\",scorer=\"other\"} 0\n",
           "ddpo_reward_items_total{outcome=\"scored\",scorer=\"jpeg_compressibility\"} 0\n",
           "ddpo_reward_queue_depth{scorer=\"jpeg_compressibility\"} 0\n",
       }) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

// https://prometheus.io/docs/practices/naming
TEST(MetricsTest, NamesFollowPrometheusRules) {
  prometheus::Registry registry;
  const LearnerMetrics learner(registry);
  const ActorMetrics actor(registry);
  const RewardServerMetrics reward_server(registry, {"jpeg_compressibility"});
  const std::regex name("ddpo_(learner|actor|reward)_[a-z0-9_]+");
  std::set<std::string> seen;
  for (const auto& family : registry.Collect()) {
    EXPECT_TRUE(std::regex_match(family.name, name)) << family.name;
    EXPECT_TRUE(seen.insert(family.name).second) << family.name << " is there twice";
    EXPECT_EQ(absl::EndsWith(family.name, "_total"), family.type == prometheus::MetricType::Counter)
        << family.name;
    EXPECT_FALSE(absl::StrContains(family.name, "milli")) << family.name;
    EXPECT_TRUE(absl::EndsWith(family.help, ".")) << family.name << ": " << family.help;
  }
  EXPECT_GE(seen.size(), 35u);
}

TEST(MetricsTest, CountsEachThingOnce) {
  prometheus::Registry registry;
  LearnerMetrics learner(registry);
  learner.samples_received.Increment(7);
  learner.samples_trained.Increment(4);
  learner.samples_dropped["duplicate"].Increment(2);
  learner.samples_buffered.Set(1);
  learner.phase_seconds["update"].Observe(0.3);
  const std::string text = Exposition(registry);
  EXPECT_THAT(text, HasSubstr("ddpo_learner_samples_received_total 7\n"));
  EXPECT_THAT(text, HasSubstr("ddpo_learner_samples_trained_total 4\n"));
  EXPECT_THAT(text, HasSubstr("ddpo_learner_samples_dropped_total{reason=\"duplicate\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("ddpo_learner_samples_dropped_total{reason=\"malformed\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("ddpo_learner_samples_buffered 1\n"));
  EXPECT_THAT(text, HasSubstr("ddpo_learner_phase_seconds_bucket{phase=\"update\",le=\"0.25\"} 0"));
  EXPECT_THAT(text, HasSubstr("ddpo_learner_phase_seconds_bucket{phase=\"update\",le=\"0.5\"} 1"));
}

TEST(MetricsTest, ActorsAreCountedByTheirLag) {
  prometheus::Registry registry;
  LearnerMetrics learner(registry);
  // The last is ahead for a moment: it acknowledged what the caller has yet to note.
  learner.SetActors({5, 5, 4, 3, 0, -1, 6}, 5);
  const std::string text = Exposition(registry);
  EXPECT_THAT(text, HasSubstr("ddpo_learner_actors{lag=\"0\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("ddpo_learner_actors{lag=\"1\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("ddpo_learner_actors{lag=\"2+\"} 3\n"));
  learner.SetActors({}, 5);
  EXPECT_THAT(Exposition(registry), HasSubstr("ddpo_learner_actors{lag=\"0\"} 0\n"));
}

TEST(MetricsTest, CallersCannotMakeTheNumberOfSeriesGrow) {
  prometheus::Registry registry;
  LearnerMetrics learner(registry);
  RewardServerMetrics reward_server(registry, {"jpeg_compressibility"});
  const size_t before = SeriesCount(registry);
  for (int i = 0; i < 100; ++i) {
    learner.samples_dropped["reason " + std::to_string(i)].Increment();
    ScorerMetrics& scorer = reward_server.ForScorer("scorer " + std::to_string(i));
    scorer.CountRequest(absl::StatusCode::kNotFound);
    scorer.CountRequest(static_cast<absl::StatusCode>(1000 + i));
  }
  EXPECT_EQ(SeriesCount(registry), before);
  const std::string text = Exposition(registry);
  EXPECT_THAT(text, HasSubstr("ddpo_learner_samples_dropped_total{reason=\"other\"} 100\n"));
  EXPECT_THAT(text,
              HasSubstr("ddpo_reward_requests_total{code=\"NOT_FOUND\",scorer=\"other\"} 100\n"));
  EXPECT_THAT(text, HasSubstr("ddpo_reward_requests_total{code=\"other\",scorer=\"other\"} 100\n"));
}

TEST(MetricsTest, EachScorerHasItsOwn) {
  prometheus::Registry registry;
  RewardServerMetrics reward_server(registry, {"a", "b"});
  reward_server.ForScorer("a").items["scored"].Increment(3);
  reward_server.ForScorer("b").batch_size.Observe(16);
  const std::string text = Exposition(registry);
  EXPECT_THAT(text, HasSubstr("ddpo_reward_items_total{outcome=\"scored\",scorer=\"a\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("ddpo_reward_items_total{outcome=\"scored\",scorer=\"b\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("ddpo_reward_batch_size_count{scorer=\"a\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("ddpo_reward_batch_size_sum{scorer=\"b\"} 16\n"));
}

}  // namespace
}  // namespace ddpo
