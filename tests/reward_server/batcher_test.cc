#include "reward_server/batcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/base/fake_clock.h"
#include "tests/reward_server/fake_scorer.h"
#include "tests/reward_server/recording_call.h"

namespace ddpo {
namespace {

using ::ddpo::testing::FakeScorer;
using ::ddpo::testing::FakeScorerControl;
using ::ddpo::testing::RecordingCall;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using Prompts = std::vector<std::string>;

class BatcherTest : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.clock = &clock_;
    options_.max_batch_delay = absl::ZeroDuration();
  }

  void Start() {
    batcher_ = std::make_unique<Batcher>(std::make_unique<FakeScorer>(&control_, info_), options_);
  }

  std::shared_ptr<RecordingCall> Submit(const std::string& caller, Prompts prompts,
                                        absl::Time deadline = absl::InfiniteFuture()) {
    auto call = std::make_shared<RecordingCall>(caller, std::move(prompts), deadline);
    const absl::Status status = batcher_->Submit(call);
    EXPECT_TRUE(status.ok()) << status;
    return call;
  }

  // Starts a call that the scorer holds on to, so that what comes later waits.
  std::shared_ptr<RecordingCall> Block() {
    control_.Close();
    auto call = Submit("blocker", {"block"});
    control_.AwaitCalls(1);
    return call;
  }

  FakeClock clock_;
  FakeScorerControl control_;
  ScorerInfo info_ = FakeScorer::DefaultInfo();
  BatcherOptions options_;
  std::unique_ptr<Batcher> batcher_;
};

TEST_F(BatcherTest, GivesEachItemItsOwnOutcome) {
  Start();
  auto call = Submit("a", {"x", "fail", "unreadable", "nan", "y"});
  call->Await();
  EXPECT_EQ(call->outcome(0)->value, 1);
  EXPECT_EQ(call->outcome(1).status(), absl::FailedPreconditionError("asked to fail"));
  EXPECT_EQ(call->outcome(2).status(), absl::InvalidArgumentError("unreadable image"));
  EXPECT_EQ(call->outcome(3).status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(call->outcome(3).status().message(), HasSubstr("not finite"));
  EXPECT_EQ(call->outcome(4)->value, 5);
  EXPECT_EQ(call->reports(), 5);
}

TEST_F(BatcherTest, FillsABatchFromSeveralCallers) {
  options_.max_batch_delay = absl::Hours(1);
  Start();
  auto a = Submit("a", {"a1", "a2"});
  auto b = Submit("b", {"b1"});
  auto c = Submit("c", {"c1"});
  c->Await();
  EXPECT_THAT(control_.batches(), ElementsAre(SizeIs(4)));
}

TEST_F(BatcherTest, SendsAPartOfABatchWhenItsFirstItemHasWaitedLongEnough) {
  options_.max_batch_delay = absl::Milliseconds(5);
  Start();
  auto call = Submit("a", {"x"});
  while (!call->AwaitFor(absl::Milliseconds(1))) clock_.Advance(absl::Milliseconds(5));
  EXPECT_THAT(control_.batches(), ElementsAre(ElementsAre("x")));
}

TEST_F(BatcherTest, TakesItemsOneByOneWhereTheScorerDoesNotGainFromBatches) {
  info_.gains_from_batching = false;
  options_.max_batch_delay = absl::Hours(1);
  Start();
  auto call = Submit("a", {"x", "y", "z"});
  call->Await();
  EXPECT_THAT(control_.batches(), ElementsAre(SizeIs(1), SizeIs(1), SizeIs(1)));
}

TEST_F(BatcherTest, RefusesACallThatDoesNotFitAndTakesNoneOfItsItems) {
  options_.max_queue_items = 3;
  Start();
  auto blocker = Block();
  auto first = Submit("a", {"1", "2"});
  auto second = std::make_shared<RecordingCall>("a", Prompts{"3", "4"});
  EXPECT_EQ(batcher_->Submit(second).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_GE(batcher_->RetryAfter(), absl::Milliseconds(10));
  EXPECT_LE(batcher_->RetryAfter(), absl::Seconds(30));
  control_.Open();
  first->Await();
  EXPECT_EQ(second->reports(), 0);
  EXPECT_EQ(batcher_->stats().refused_items, 2);
  EXPECT_TRUE(batcher_->Submit(second).ok());
  second->Await();
}

TEST_F(BatcherTest, BoundsTheMemoryOfWaitingCalls) {
  options_.max_queue_bytes = 100;
  Start();
  auto blocker = Block();
  auto first = std::make_shared<RecordingCall>("a", Prompts{"1", "2"}, absl::InfiniteFuture(), 80);
  EXPECT_TRUE(batcher_->Submit(first).ok());
  auto second = std::make_shared<RecordingCall>("a", Prompts{"3"}, absl::InfiniteFuture(), 30);
  EXPECT_EQ(batcher_->Submit(second).code(), absl::StatusCode::kResourceExhausted);
  control_.Open();
  first->Await();
  EXPECT_TRUE(batcher_->Submit(second).ok());
  second->Await();
  EXPECT_EQ(batcher_->stats().waiting_bytes, 0);
}

TEST_F(BatcherTest, RefusesForGoodACallThatIsEmptyOrLargerThanTheQueue) {
  options_.max_queue_items = 2;
  Start();
  EXPECT_EQ(batcher_->Submit(std::make_shared<RecordingCall>("a", Prompts{})).code(),
            absl::StatusCode::kInvalidArgument);
  const absl::Status status =
      batcher_->Submit(std::make_shared<RecordingCall>("a", Prompts{"1", "2", "3"}));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("3 items"));
  EXPECT_THAT(status.message(), HasSubstr("holds 2 items"));
}

TEST_F(BatcherTest, DropsExpiredWorkBeforeItIsComputed) {
  Start();
  auto blocker = Block();
  auto late = Submit("a", {"late"}, clock_.Now() + absl::Seconds(1));
  auto patient = Submit("b", {"patient"}, clock_.Now() + absl::Seconds(3));
  clock_.Advance(absl::Seconds(2));
  control_.Open();
  late->Await();
  patient->Await();
  EXPECT_EQ(late->dropped(0).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(patient->outcome(0)->value, 1);
  EXPECT_THAT(control_.batches(), ElementsAre(ElementsAre("block"), ElementsAre("patient")));
}

TEST_F(BatcherTest, SweepDropsCancelledWorkAtOnceAndFreesItsPlaces) {
  options_.max_queue_items = 10;
  Start();
  auto blocker = Block();
  auto call = Submit("a", Prompts(10, "unwanted"));
  call->Cancel();
  batcher_->Sweep();
  // An item in the hands of the preparing thread may be dropped a moment later, by that thread.
  call->Await();
  for (size_t i = 0; i < call->items(); ++i) {
    EXPECT_EQ(call->dropped(i).code(), absl::StatusCode::kCancelled);
  }
  auto next = Submit("b", Prompts(10, "wanted"));
  control_.Open();
  next->Await();
  EXPECT_EQ(batcher_->stats().dropped_items, 10);
  EXPECT_EQ(batcher_->stats().waiting_items, 0);
}

TEST_F(BatcherTest, AFullQueueForgetsCancelledCallsBeforeItRefusesOne) {
  options_.max_queue_items = 4;
  Start();
  auto blocker = Block();
  auto gone = Submit("a", Prompts(4, "unwanted"));
  gone->AwaitPrepared(4);
  gone->Cancel();
  auto call = std::make_shared<RecordingCall>("b", Prompts(2, "wanted"));
  absl::Status status = batcher_->Submit(call);
  // The last of the four may be in the hands of the preparing thread.
  gone->Await();
  if (absl::IsResourceExhausted(status)) status = batcher_->Submit(call);
  EXPECT_TRUE(status.ok()) << status;
  control_.Open();
  call->Await();
}

TEST_F(BatcherTest, ServesACallerWithOneItemSoonHoweverManyAnotherHas) {
  info_.gains_from_batching = false;
  Start();
  auto blocker = Block();
  auto busy = Submit("busy", Prompts(200, "busy"));
  auto modest = Submit("modest", {"modest"});
  control_.Open();
  modest->Await();
  busy->Await();
  const auto batches = control_.batches();
  const auto place = std::find(batches.begin(), batches.end(), Prompts{"modest"}) - batches.begin();
  // The blocker, two that were prepared already, one of each caller's turn.
  EXPECT_LE(place, 5);
}

TEST_F(BatcherTest, DecodesNoMoreThanItMayHoldInMemory) {
  options_.max_prepared_bytes = 1;
  Start();
  auto blocker = Block();
  auto call = Submit("a", Prompts(20, "x"));
  call->AwaitPrepared(1);
  EXPECT_EQ(call->prepared(), 1);
  control_.Open();
  call->Await();
  EXPECT_EQ(call->outcome(19)->value, 20);
}

TEST_F(BatcherTest, StopFinishesAcceptedWorkAndTakesNoMore) {
  options_.max_batch_delay = absl::Hours(1);
  Start();
  auto call = Submit("a", Prompts(7, "x"));
  batcher_->Stop();
  EXPECT_EQ(call->reports(), 7);
  EXPECT_EQ(call->outcome(6)->value, 7);
  EXPECT_EQ(batcher_->Submit(call).code(), absl::StatusCode::kUnavailable);
}

TEST_F(BatcherTest, AbortDropsWhatWaitsAndLetsTheRunningBatchEnd) {
  Start();
  auto running = Block();
  auto waiting = Submit("a", Prompts(20, "x"));
  std::thread abort([this] { batcher_->Abort(); });
  waiting->Await();
  EXPECT_EQ(waiting->dropped(19).code(), absl::StatusCode::kUnavailable);
  control_.Open();
  abort.join();
  EXPECT_EQ(running->outcome(0)->value, 1);
  EXPECT_THAT(control_.batches(), SizeIs(1));
}

TEST_F(BatcherTest, AbortCutsARunningStopShort) {
  Start();
  auto running = Block();
  auto waiting = Submit("a", Prompts(20, "x"));
  std::thread stop([this] { batcher_->Stop(); });
  std::thread abort([this] { batcher_->Abort(); });
  waiting->Await();
  control_.Open();
  stop.join();
  abort.join();
  EXPECT_EQ(waiting->reports(), 20);
}

TEST_F(BatcherTest, AScorerThatForgetsAnOutcomeFailsTheBatch) {
  Start();
  auto call = Submit("a", {"short"});
  call->Await();
  EXPECT_EQ(call->outcome(0).status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(call->outcome(0).status().message(), HasSubstr("0 outcomes for 1 inputs"));
}

TEST_F(BatcherTest, ReportsEveryItemOnceUnderConcurrentCallersAndThreads) {
  info_.thread_safe = true;
  options_.preparing_threads = 3;
  options_.scoring_threads = 3;
  options_.max_queue_items = 100000;
  Start();
  constexpr int kCallers = 16;
  std::vector<std::vector<std::shared_ptr<RecordingCall>>> calls(kCallers);
  std::vector<std::thread> callers;
  for (int i = 0; i < kCallers; ++i) {
    callers.emplace_back([&, i] {
      for (int j = 0; j < 20; ++j) {
        calls[i].push_back(Submit(std::string(1, static_cast<char>('a' + i)), Prompts(9, "x")));
        if (j % 5 == 0) {
          calls[i].back()->Cancel();
          batcher_->Sweep();
        }
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  batcher_->Stop();
  for (const auto& of_caller : calls) {
    for (const auto& call : of_caller) {
      EXPECT_EQ(call->reports(), 9);
      for (size_t i = 0; i < 9; ++i) {
        EXPECT_NE(call->outcome(i).ok(), !call->dropped(i).ok());
      }
    }
  }
}

}  // namespace
}  // namespace ddpo
