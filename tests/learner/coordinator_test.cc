#include "learner/coordinator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/fake_clock.h"

namespace ddpo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using cluster::v1::LeaseTaskResponse;
using cluster::v1::RolloutTask;

RolloutTask Task(int epoch, int batch, int64_t version) {
  RolloutTask task;
  task.set_task_id(absl::StrCat("e", epoch, "-b", batch));
  task.set_epoch(epoch);
  task.set_policy_version(version);
  task.add_prompts("a cat");
  task.add_seeds(1);
  return task;
}

// What a LeaseTask call got, if it was answered yet.
struct LeaseCall {
  std::optional<absl::Status> status;
  LeaseTaskResponse response;

  std::string task_id() const { return response.lease().task().task_id(); }
  uint64_t lease_id() const { return response.lease().lease_id(); }
};

class CoordinatorTest : public ::testing::Test {
 protected:
  CoordinatorTest() {
    CoordinatorOptions options;
    options.run_id = "run";
    options.generation = 7;
    options.model_digest = "digest";
    options.lease_duration = absl::Seconds(30);
    options.max_task_attempts = 3;
    options.clock = &clock_;
    coordinator_.emplace(options);
    EXPECT_TRUE(Register("actor-0", 1).ok());
    EXPECT_TRUE(Register("actor-1", 1).ok());
  }

  absl::Status Register(const std::string& actor, uint64_t incarnation,
                        const std::string& digest = "digest") {
    cluster::v1::RegisterRequest request;
    request.set_actor_id(actor);
    request.set_incarnation(incarnation);
    request.set_model_digest(digest);
    return coordinator_->Register(request).status();
  }

  template <typename Request>
  Request From(const std::string& actor, uint64_t incarnation = 1, uint64_t generation = 7) {
    Request request;
    request.set_actor_id(actor);
    request.set_incarnation(incarnation);
    request.set_generation(generation);
    return request;
  }

  void Lease(LeaseCall* call, const std::string& actor, uint64_t incarnation = 1,
             uint64_t generation = 7) {
    auto request = From<cluster::v1::LeaseTaskRequest>(actor, incarnation, generation);
    request.set_wait_ms(10000);
    coordinator_->LeaseTask(request, call,
                            [call](const absl::Status& status, const LeaseTaskResponse& response) {
                              EXPECT_FALSE(call->status.has_value()) << "answered twice";
                              call->status = status;
                              call->response = response;
                            });
  }

  std::vector<uint64_t> Renew(const std::string& actor, const std::vector<uint64_t>& ids) {
    auto request = From<cluster::v1::RenewLeasesRequest>(actor);
    request.mutable_lease_ids()->Assign(ids.begin(), ids.end());
    const auto response = coordinator_->RenewLeases(request);
    EXPECT_TRUE(response.ok()) << response.status();
    return {response->lost_lease_ids().begin(), response->lost_lease_ids().end()};
  }

  void Fail(const LeaseCall& call, const std::string& actor, const std::string& message,
            absl::StatusCode code = absl::StatusCode::kUnavailable) {
    auto request = From<cluster::v1::FailTaskRequest>(actor);
    request.set_task_id(call.task_id());
    request.set_lease_id(call.lease_id());
    request.set_code(static_cast<int>(code));
    request.set_message(message);
    EXPECT_TRUE(coordinator_->FailTask(request).ok());
  }

  void Pass(absl::Duration duration) {
    clock_.Advance(duration);
    coordinator_->Tick();
  }

  FakeClock clock_;
  std::optional<Coordinator> coordinator_;
};

TEST_F(CoordinatorTest, AnswersAWaitingCallWhenATaskComes) {
  coordinator_->Publish(0);
  LeaseCall call;
  Lease(&call, "actor-0");
  EXPECT_FALSE(call.status.has_value());
  coordinator_->AddTasks({Task(0, 0, 0)});
  ASSERT_TRUE(call.status.has_value());
  EXPECT_EQ(call.task_id(), "e0-b0");
}

TEST_F(CoordinatorTest, AnswersNoTaskWhenTheWaitIsOver) {
  LeaseCall call;
  Lease(&call, "actor-0");
  Pass(absl::Seconds(9));
  EXPECT_FALSE(call.status.has_value());
  Pass(absl::Seconds(2));
  ASSERT_TRUE(call.status.has_value());
  EXPECT_TRUE(call.response.has_none());
}

TEST_F(CoordinatorTest, HoldsATaskBackUntilItsPolicyIsPublished) {
  coordinator_->Publish(0);
  coordinator_->AddTasks({Task(1, 0, 1)});
  LeaseCall call;
  Lease(&call, "actor-0");
  EXPECT_FALSE(call.status.has_value());
  coordinator_->Publish(1);
  ASSERT_TRUE(call.status.has_value());
  EXPECT_EQ(call.response.lease().task().policy_version(), 1);
}

TEST_F(CoordinatorTest, HandsATaskOutAgainWhenItsLeaseRanOut) {
  coordinator_->Publish(0);
  coordinator_->AddTasks({Task(0, 0, 0)});
  LeaseCall first, second;
  Lease(&first, "actor-0");
  Lease(&second, "actor-1");
  Pass(absl::Seconds(29));
  // The wait of the second call is over by then.
  LeaseCall third;
  Lease(&third, "actor-1");
  EXPECT_FALSE(third.status.has_value());
  Pass(absl::Seconds(2));
  ASSERT_TRUE(third.status.has_value());
  EXPECT_EQ(third.response.lease().task().SerializeAsString(),
            first.response.lease().task().SerializeAsString());
  EXPECT_NE(third.lease_id(), first.lease_id());
  EXPECT_EQ(coordinator_->expired_leases(), 1);
  EXPECT_THAT(Renew("actor-0", {first.lease_id()}), ElementsAre(first.lease_id()));
}

TEST_F(CoordinatorTest, ARenewedLeaseLastsOn) {
  coordinator_->Publish(0);
  coordinator_->AddTasks({Task(0, 0, 0)});
  LeaseCall call;
  Lease(&call, "actor-0");
  for (int i = 0; i < 5; ++i) {
    Pass(absl::Seconds(20));
    EXPECT_THAT(Renew("actor-0", {call.lease_id()}), IsEmpty());
  }
  EXPECT_EQ(coordinator_->expired_leases(), 0);
}

TEST_F(CoordinatorTest, RenewsOnlyTheLeasesThatAreNamed) {
  // The answer that carried the first lease was lost: the actor renews what it knows of.
  coordinator_->Publish(0);
  coordinator_->AddTasks({Task(0, 0, 0), Task(0, 1, 0)});
  LeaseCall lost, known;
  Lease(&lost, "actor-0");
  Lease(&known, "actor-0");
  Pass(absl::Seconds(20));
  Renew("actor-0", {known.lease_id()});
  Pass(absl::Seconds(20));
  EXPECT_EQ(coordinator_->expired_leases(), 1);
  LeaseCall again;
  Lease(&again, "actor-1");
  ASSERT_TRUE(again.status.has_value());
  EXPECT_EQ(again.task_id(), lost.task_id());
}

// Lease ids begin at 1 in each generation: a batch from before may bear the id of another's lease.
TEST_F(CoordinatorTest, AnActorCannotRenewTheLeaseOfAnother) {
  coordinator_->Publish(0);
  coordinator_->AddTasks({Task(0, 0, 0)});
  LeaseCall call;
  Lease(&call, "actor-0");
  Pass(absl::Seconds(20));
  EXPECT_THAT(Renew("actor-1", {call.lease_id()}), ElementsAre(call.lease_id()));
  Pass(absl::Seconds(20));
  EXPECT_EQ(coordinator_->expired_leases(), 1);
}

TEST_F(CoordinatorTest, ANewIncarnationTakesTheLeasesOfTheOldAway) {
  coordinator_->Publish(0);
  coordinator_->AddTasks({Task(0, 0, 0)});
  LeaseCall old;
  Lease(&old, "actor-0");
  ASSERT_TRUE(Register("actor-0", 2).ok());
  LeaseCall next;
  Lease(&next, "actor-1");
  ASSERT_TRUE(next.status.has_value());
  EXPECT_EQ(next.task_id(), old.task_id());
  const auto renewed =
      coordinator_->RenewLeases(From<cluster::v1::RenewLeasesRequest>("actor-0", 1));
  EXPECT_EQ(renewed.status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(CoordinatorTest, RegisteringAgainKeepsTheLeases) {
  coordinator_->Publish(0);
  coordinator_->AddTasks({Task(0, 0, 0)});
  LeaseCall call;
  Lease(&call, "actor-0");
  ASSERT_TRUE(Register("actor-0", 1).ok());
  EXPECT_THAT(Renew("actor-0", {call.lease_id()}), IsEmpty());
}

TEST_F(CoordinatorTest, RefusesAnOlderGeneration) {
  LeaseCall call;
  Lease(&call, "actor-0", 1, 6);
  ASSERT_TRUE(call.status.has_value());
  EXPECT_EQ(call.status->code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(call.status->message()), HasSubstr("generation 6"));
}

TEST_F(CoordinatorTest, RefusesAnotherBaseModel) {
  const absl::Status status = Register("actor-2", 1, "other");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("other"));
}

TEST_F(CoordinatorTest, HandsOutTasksInTheirOrderAndReturnedOnesFirst) {
  coordinator_->Publish(0);
  coordinator_->AddTasks({Task(0, 0, 0), Task(0, 1, 0), Task(0, 2, 0)});
  LeaseCall a, b, c, d;
  Lease(&a, "actor-0");
  Lease(&b, "actor-1");
  Fail(a, "actor-0", "no reward");
  Lease(&c, "actor-0");
  Lease(&d, "actor-0");
  EXPECT_EQ(b.task_id(), "e0-b1");
  EXPECT_EQ(c.task_id(), "e0-b0");
  EXPECT_EQ(d.task_id(), "e0-b2");
}

TEST_F(CoordinatorTest, ATaskThatFailsTooOftenIsTheRunsError) {
  coordinator_->Publish(0);
  coordinator_->AddTasks({Task(0, 0, 0)});
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(coordinator_->error().ok());
    LeaseCall call;
    Lease(&call, "actor-0");
    Fail(call, "actor-0", "the reward server has no scorer `x`");
  }
  EXPECT_THAT(std::string(coordinator_->error().message()),
              ::testing::AllOf(HasSubstr("e0-b0"), HasSubstr("3 times"), HasSubstr("actor-0"),
                               HasSubstr("no scorer `x`")));
}

class MisleadingCodeTest : public CoordinatorTest,
                           public ::testing::WithParamInterface<absl::StatusCode> {};
// As the run's error the one would be its success, the other a stop that was asked for.
INSTANTIATE_TEST_SUITE_P(Codes, MisleadingCodeTest,
                         ::testing::Values(absl::StatusCode::kOk, absl::StatusCode::kCancelled));

TEST_P(MisleadingCodeTest, ATaskThatFailsTooOftenIsAnError) {
  coordinator_->Publish(0);
  coordinator_->AddTasks({Task(0, 0, 0)});
  for (int i = 0; i < 3; ++i) {
    LeaseCall call;
    Lease(&call, "actor-0");
    Fail(call, "actor-0", "delivering: cancelled", GetParam());
  }
  EXPECT_EQ(coordinator_->error().code(), absl::StatusCode::kUnknown);
  EXPECT_THAT(std::string(coordinator_->error().message()), HasSubstr("delivering: cancelled"));
}

TEST_F(CoordinatorTest, ATaskThatKillsItsActorsIsTheRunsErrorToo) {
  coordinator_->Publish(0);
  coordinator_->AddTasks({Task(0, 0, 0)});
  for (uint64_t incarnation = 1; incarnation <= 3; ++incarnation) {
    EXPECT_TRUE(coordinator_->error().ok());
    LeaseCall call;
    Lease(&call, "actor-0", incarnation);
    ASSERT_TRUE(Register("actor-0", incarnation + 1).ok());
  }
  EXPECT_FALSE(coordinator_->error().ok());
}

TEST_F(CoordinatorTest, IgnoresAFailureOfALeaseThatIsAnothersNow) {
  coordinator_->Publish(0);
  coordinator_->AddTasks({Task(0, 0, 0)});
  LeaseCall old, current;
  Lease(&old, "actor-0");
  Pass(absl::Seconds(31));
  Lease(&current, "actor-1");
  Fail(old, "actor-0", "late");
  EXPECT_THAT(Renew("actor-1", {current.lease_id()}), IsEmpty());
  EXPECT_EQ(coordinator_->failed_tasks(), 0);
}

TEST_F(CoordinatorTest, ACompleteTaskIsNotHandedOutAgain) {
  coordinator_->Publish(0);
  coordinator_->AddTasks({Task(0, 0, 0)});
  LeaseCall call;
  Lease(&call, "actor-0");
  Pass(absl::Seconds(31));          // the lease ran out …
  coordinator_->Complete("e0-b0");  // … but its samples came after all
  LeaseCall next;
  Lease(&next, "actor-1");
  EXPECT_FALSE(next.status.has_value());
  EXPECT_EQ(coordinator_->leases(), 0);
}

TEST_F(CoordinatorTest, AnActorWaitsOnceAtMost) {
  LeaseCall first, second;
  Lease(&first, "actor-0");
  Lease(&second, "actor-0");
  ASSERT_TRUE(first.status.has_value());
  EXPECT_TRUE(first.response.has_none());
  EXPECT_FALSE(second.status.has_value());
}

TEST_F(CoordinatorTest, ACancelledCallGetsNoTask) {
  coordinator_->Publish(0);
  LeaseCall cancelled, other;
  Lease(&cancelled, "actor-0");
  Lease(&other, "actor-1");
  coordinator_->StopWaiting(&cancelled);
  coordinator_->AddTasks({Task(0, 0, 0)});
  EXPECT_TRUE(cancelled.response.has_none());
  EXPECT_EQ(other.task_id(), "e0-b0");
}

TEST_F(CoordinatorTest, TellsEveryActorThatTheRunHasEnded) {
  LeaseCall waiting, later;
  Lease(&waiting, "actor-0");
  coordinator_->End("complete");
  ASSERT_TRUE(waiting.status.has_value());
  EXPECT_EQ(waiting.response.ended().reason(), "complete");
  EXPECT_FALSE(coordinator_->AllActorsToldEnd());
  Lease(&later, "actor-1");
  EXPECT_EQ(later.response.ended().reason(), "complete");
  EXPECT_TRUE(coordinator_->AllActorsToldEnd());
}

TEST_F(CoordinatorTest, TellsOfEachActorWhatItLostLastAndWhy) {
  coordinator_->Publish(0);
  coordinator_->AddTasks({Task(0, 0, 0), Task(0, 1, 0)});
  LeaseCall first;
  Lease(&first, "actor-0");
  Fail(first, "actor-0", "no reward came");
  LeaseCall second;
  Lease(&second, "actor-0");
  clock_.Advance(absl::Seconds(5));
  ASSERT_TRUE(Register("actor-0", 2).ok());
  clock_.Advance(absl::Seconds(2));
  const std::vector<cluster::v1::ActorStatus> statuses = coordinator_->ActorStatuses();
  ASSERT_EQ(statuses.size(), 2);
  EXPECT_EQ(statuses[0].tasks_lost(), 2);
  EXPECT_EQ(statuses[0].last_error(), "the actor was started anew");
  EXPECT_EQ(statuses[0].last_error_age_seconds(), 2);
  EXPECT_EQ(statuses[1].tasks_lost(), 0);
  EXPECT_THAT(statuses[1].last_error(), IsEmpty());
}

TEST_F(CoordinatorTest, CutsALongErrorBetweenCharacters) {
  coordinator_->Publish(0);
  coordinator_->AddTasks({Task(0, 0, 0)});
  LeaseCall call;
  Lease(&call, "actor-0");
  const std::string start(499, 'x');
  Fail(call, "actor-0", start + "ü and so on");
  EXPECT_EQ(coordinator_->ActorStatuses()[0].last_error(), start);
}

TEST_F(CoordinatorTest, ForgetsActorsThatAreSilentForLong) {
  Pass(absl::Minutes(11));
  EXPECT_THAT(coordinator_->ActorStatuses(), IsEmpty());
}

TEST_F(CoordinatorTest, ATaskThatAnotherRankHasTakenIsNotHandedOutAgain) {
  coordinator_->Publish(0);
  coordinator_->AddTasks({Task(0, 0, 0)});
  LeaseCall call;
  Lease(&call, "actor-0");
  auto request = From<cluster::v1::CompleteTaskRequest>("actor-0", 1, /*generation=*/6);
  request.set_task_id("e0-b0");
  EXPECT_EQ(coordinator_->CompleteTask(request).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(coordinator_->leases(), 1);
  request.set_generation(7);
  EXPECT_TRUE(coordinator_->CompleteTask(request).ok());
  EXPECT_TRUE(coordinator_->CompleteTask(request).ok());  // a response may have been lost
  EXPECT_EQ(coordinator_->leases(), 0);
  EXPECT_EQ(coordinator_->waiting_tasks(), 0);
}

// An actor that dies between its last ack and CompleteTask leaves its lease to run out.
TEST_F(CoordinatorTest, ForgetsTasksOfAnEpochThatIsComplete) {
  coordinator_->Publish(1);
  coordinator_->AddTasks({Task(0, 0, 0), Task(0, 1, 0), Task(1, 0, 1)});
  LeaseCall leased;
  Lease(&leased, "actor-0");
  coordinator_->CompleteEpoch(0);
  EXPECT_EQ(coordinator_->leases(), 0);
  Pass(absl::Seconds(31));
  LeaseCall next;
  Lease(&next, "actor-1");
  EXPECT_EQ(next.task_id(), "e1-b0");
  EXPECT_EQ(coordinator_->waiting_tasks(), 0);
}

}  // namespace
}  // namespace ddpo
