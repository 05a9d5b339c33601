#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "tools/status/status_output.h"

namespace ddpo {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

cluster::v1::GetStatusResponse RunInItsFourthEpoch() {
  cluster::v1::GetStatusResponse status;
  status.set_run_id("demo");
  status.set_generation(2);
  status.set_epoch(3);
  status.set_epochs_total(80);
  status.set_policy_version(3);
  status.set_phase("sampling");
  status.set_phase_done(16);
  status.set_phase_total(64);
  status.set_progress_age_seconds(0.25);
  status.set_checkpoint_epochs(3);
  status.set_checkpoint_age_seconds(240);
  status.set_tasks_waiting(1);
  status.set_tasks_leased(2);
  status.set_leases_expired(1);
  status.set_last_metrics_json(R"({"epoch": 2, "reward_mean": -0.75, "samples_per_second": 20.5})");
  status.mutable_ledger()->set_received(210);
  status.mutable_ledger()->set_trained(192);
  status.mutable_ledger()->set_buffered(16);
  (*status.mutable_ledger()->mutable_dropped())["duplicate"] = 2;
  cluster::v1::ActorStatus* actor = status.add_actors();
  actor->set_actor_id("actor-0");
  actor->set_policy_version(3);
  actor->add_task_ids("e3-b1");
  actor->set_samples_delivered(100);
  actor->set_last_seen_seconds(0.5);
  actor = status.add_actors();
  actor->set_actor_id("actor-with-a-long-name");
  actor->set_policy_version(2);
  actor->add_task_ids("e3-b2");
  actor->set_samples_delivered(110);
  actor->set_last_seen_seconds(7200);
  actor->set_tasks_lost(1);
  actor->set_last_error("no reward:\nthe server is gone");
  actor->set_last_error_age_seconds(30);
  return status;
}

TEST(StatusTextTest, SaysWhatTheRunDoesAndWhereItsActorsAre) {
  EXPECT_EQ(ClusterStatusText(RunInItsFourthEpoch()),
            R"(run        demo, start 2
epoch      3 of 80
phase      sampling, 16 of 64 samples; last progress 0.2 s ago
reward     -0.7500 in epoch 2, 20.5 images/s
policy     version 3; actors: 1 at 3, 1 at 2
checkpoint after 3 epochs, 4 min ago
tasks      1 wait, 2 with actors; 1 leases expired, 0 given back
samples    210 received = 192 trained + 16 buffered + 2 dropped (2 duplicate)

actor                   version  samples  heard of      lost  holds
actor-0                       3      100  0.5 s ago        0  e3-b1
actor-with-a-long-name        2      110  2.0 h ago        1  e3-b2
actor-with-a-long-name lost a task 30.0 s ago: no reward: the server is gone
)");
}

TEST(StatusTextTest, ARunThatHasNotBegunHasNoRewardCheckpointOrActors) {
  cluster::v1::GetStatusResponse status;
  status.set_phase("starting");
  status.set_checkpoint_epochs(-1);
  const std::string text = ClusterStatusText(status);
  EXPECT_THAT(text, HasSubstr("reward     none yet\n"));
  EXPECT_THAT(text, HasSubstr("checkpoint none\n"));
  EXPECT_THAT(text, HasSubstr("there are no actors\n"));
  EXPECT_THAT(text, Not(HasSubstr("error")));
}

TEST(StatusTextTest, ShowsWhyTheRunFailedAndHowOftenItDidBefore) {
  cluster::v1::GetStatusResponse status;
  status.set_phase("failed");
  status.set_error("the loss is not finite");
  (*status.mutable_failures())["other"] = 1;
  (*status.mutable_failures())["non_finite"] = 2;
  status.set_checkpoint_epochs(5);
  status.set_checkpoint_age_seconds(-1);
  const std::string text = ClusterStatusText(status);
  EXPECT_THAT(text, HasSubstr("failures   1 other, 2 non_finite (starts, by reason)\n"));
  EXPECT_THAT(text, HasSubstr("error      the loss is not finite\n"));
  EXPECT_THAT(text, HasSubstr("checkpoint after 5 epochs, of an earlier start\n"));
}

TEST(StatusJsonTest, HasNumbersForNumbersAndNullForWhatIsNotThere) {
  const nlohmann::json json = ClusterStatusJson(RunInItsFourthEpoch());
  EXPECT_EQ(json["epoch"], 3);
  EXPECT_EQ(json["checkpoint"], nlohmann::json({{"epochs", 3}, {"age_seconds", 240.0}}));
  EXPECT_EQ(json["tasks"]["waiting"], 1);
  EXPECT_EQ(json["ledger"]["dropped"]["duplicate"], 2);
  EXPECT_EQ(json["last_metrics"]["reward_mean"], -0.75);
  EXPECT_TRUE(json["error"].is_null());
  EXPECT_TRUE(json["actors"][0]["last_error"].is_null());
  EXPECT_EQ(json["actors"][0]["tasks_held"], nlohmann::json({"e3-b1"}));
  EXPECT_EQ(json["actors"][1]["last_error"]["message"], "no reward:\nthe server is gone");
  EXPECT_TRUE(ClusterStatusJson({})["last_metrics"].is_null());
}

}  // namespace
}  // namespace ddpo
