#include "learner/collective/collective.h"

#include <unistd.h>

#include <cerrno>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "common/base/free_port.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/collective/key_value_store.h"
#include "learner/collective/store_gather.h"
#include "tests/learner/collective/run_ranks.h"

namespace ddpo {
namespace {

using ::ddpo::testing::RankOptions;
using ::ddpo::testing::RunRanks;
using ::ddpo::testing::Together;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

CollectiveOptions Within(absl::Duration timeout) {
  CollectiveOptions options;
  options.timeout = timeout;
  return options;
}

// Numbers whose sum depends on the order of addition.
std::vector<float> Awkward(int rank, int elements) {
  std::vector<float> values(elements);
  for (int i = 0; i < elements; ++i) values[i] = 1.0f / static_cast<float>(1 + i * 7 + rank * 3);
  return values;
}

// Fails by a crash when libgloo stands behind libtorch_cpu on this program's link line.
TEST(CollectiveTest, AddsTheBuffersOfAllRanks) {
  RunRanks(4, {}, Together([](Collective& collective) {
             std::vector<float> values(10007, static_cast<float>(collective.rank() + 1));
             ASSERT_TRUE(collective.AllReduceSum({values.data(), values.size()}).ok());
             for (float value : values) ASSERT_EQ(value, 10.0f);
           }));
}

TEST(CollectiveTest, GivesEveryRankTheSameBitsEachTime) {
  std::vector<std::vector<float>> results(8);
  for (int repetition = 0; repetition < 2; ++repetition) {
    RunRanks(4, {}, Together([&](Collective& collective) {
               std::vector<float> values = Awkward(collective.rank(), 3001);
               ASSERT_TRUE(collective.AllReduceSum({values.data(), values.size()}).ok());
               results[repetition * 4 + collective.rank()] = values;
             }));
  }
  for (const std::vector<float>& result : results) EXPECT_EQ(result, results[0]);
}

TEST(CollectiveTest, GathersInRankOrder) {
  RunRanks(3, {}, [](Collective& collective) {
    for (int round = 0; round < 5; ++round) {
      auto values = collective.AllGather(absl::StrCat(round, "-", collective.rank()));
      ASSERT_TRUE(values.ok()) << values.status();
      EXPECT_THAT(*values, ElementsAre(absl::StrCat(round, "-0"), absl::StrCat(round, "-1"),
                                       absl::StrCat(round, "-2")));
    }
  });
}

TEST(CollectiveTest, MeasuresTheTimeInCalls) {
  RunRanks(2, {}, [](Collective& collective) {
    const absl::Time start = absl::Now();
    const absl::Duration before = collective.time_in_calls();
    std::vector<float> values(10, 1.0f);
    ASSERT_TRUE(collective.AllReduceSum({values.data(), values.size()}).ok());
    const absl::Duration reduced = collective.time_in_calls();
    EXPECT_GT(reduced, before);
    ASSERT_TRUE(collective.AllGather("x").ok());
    EXPECT_GT(collective.time_in_calls(), reduced);
    EXPECT_LE(collective.time_in_calls() - before, absl::Now() - start);
  });
}

TEST(CollectiveTest, NamesTheRankThatDiedInAnAllReduce) {
  RunRanks(3, Within(absl::Seconds(5)), [](Collective& collective) {
    // Rank 2 dies: its connections close when its object goes.
    if (collective.rank() == 2) return;
    std::vector<float> values(1000, 1.0f);
    const absl::Status status = collective.AllReduceSum({values.data(), values.size()});
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()), HasSubstr("rank 2 of 3 is gone"));
  });
}

TEST(CollectiveTest, WritingToARankThatDiedDoesNotEndTheProcess) {
  RunRanks(2, {}, [](Collective&) {});
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  close(ends[0]);
  EXPECT_EQ(write(ends[1], "x", 1), -1);
  EXPECT_EQ(errno, EPIPE);
  close(ends[1]);
}

TEST(CollectiveTest, NamesTheRankThatDiedInAGather) {
  RunRanks(3, Within(absl::Seconds(5)), [](Collective& collective) {
    if (collective.rank() == 1) return;
    const auto values = collective.AllGather("x");
    EXPECT_EQ(values.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(values.status().message()), HasSubstr("rank 1 of 3 is gone: it ended"));
    EXPECT_TRUE(collective.failed());
  });
}

TEST(CollectiveTest, TellsTheOthersWhyARankGaveUp) {
  for (const bool in_all_reduce : {true, false}) {
    RunRanks(2, Within(absl::Seconds(20)), [&](Collective& collective) {
      if (collective.rank() == 1) return collective.Abort("the disk is full");
      std::vector<float> values(10, 1.0f);
      const absl::Status status = in_all_reduce
                                      ? collective.AllReduceSum({values.data(), values.size()})
                                      : collective.AllGather("x").status();
      EXPECT_THAT(std::string(status.message()),
                  HasSubstr("rank 1 of 2 is gone: the disk is full"));
    });
  }
}

TEST(CollectiveTest, AllRanksHaveTheGenerationOfRankZero) {
  RunRanks(2, {}, [](Collective& collective) { EXPECT_EQ(collective.generation(), 17); });
}

TEST(CollectiveTest, ARankThatComesASecondTimeIsRefused) {
  const int port = *FreePort();
  absl::Notification met;
  std::thread rank_0([&] {
    auto collective = CreateCollective(RankOptions(0, 2, port));
    ASSERT_TRUE(collective.ok()) << collective.status();
    met.WaitForNotification();
    EXPECT_TRUE((*collective)->AllGather("x").ok());
    EXPECT_TRUE((*collective)->Leave().ok());
  });
  auto first = CreateCollective(RankOptions(1, 2, port));
  ASSERT_TRUE(first.ok()) << first.status();
  // As a rank that was started again before rank 0 has noticed its end.
  const auto second = CreateCollective(RankOptions(1, 2, port));
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr("rank 1 has been in the group generation-17 before"));
  met.Notify();
  EXPECT_TRUE((*first)->AllGather("x").ok());  // nothing has disturbed the group
  EXPECT_TRUE((*first)->Leave().ok());
  rank_0.join();
}

TEST(CollectiveTest, NamesTheRankThatHangsInAGather) {
  absl::Notification rank_0_gave_up;
  RunRanks(2, Within(absl::Seconds(1)), [&](Collective& collective) {
    if (collective.rank() == 1) {
      rank_0_gave_up.WaitForNotification();
      return;
    }
    auto values = collective.AllGather("x");
    EXPECT_EQ(values.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(values.status().message()), HasSubstr("rank 1 of 2 did not answer"));
    rank_0_gave_up.Notify();
  });
}

TEST(CollectiveTest, NamesTheRankThatNeverCame) {
  CollectiveOptions options;
  options.size = 2;
  options.store_port = static_cast<uint16_t>(*FreePort());
  options.meeting_timeout = absl::Seconds(1);
  auto collective = CreateCollective(options);
  EXPECT_EQ(collective.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(collective.status().message()),
              HasSubstr("rank 1 of 2 did not answer within 1s"));
}

TEST(CollectiveTest, ARankSaysThatRankZeroNeverCame) {
  CollectiveOptions options = RankOptions(1, 2, *FreePort());
  options.meeting_timeout = absl::Seconds(1);
  const auto collective = CreateCollective(options);
  EXPECT_EQ(collective.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(collective.status().message()),
              AllOf(HasSubstr("rank 0, which serves the store at 127.0.0.1:"),
                    HasSubstr("did not come within 1s")));
}

// A server that hangs: answers nothing until it is let go.
class HangingStore : public KeyValueStore {
 public:
  explicit HangingStore(absl::Notification* let_go) : let_go_(let_go) {}
  absl::Status Set(const std::string&, const std::string&) override { return Hang(); }
  absl::StatusOr<std::string> Get(const std::string&, absl::Duration) override { return Hang(); }
  absl::StatusOr<bool> Contains(const std::string&) override { return Hang(); }
  absl::Status Delete(const std::string&) override { return Hang(); }
  absl::StatusOr<int64_t> Count(const std::string&) override { return Hang(); }

 private:
  absl::Status Hang() {
    let_go_->WaitForNotification();
    return absl::AbortedError("let go");
  }
  absl::Notification* const let_go_;
};

TEST(ImpatientStoreTest, EveryCallToAServerThatHangsReturns) {
  static absl::Notification let_go;  // outlives the store's thread
  {
    const auto store =
        CreateImpatientStore(std::make_unique<HangingStore>(&let_go), absl::Milliseconds(20));
    EXPECT_THAT(std::string(store->Contains("key").status().message()),
                HasSubstr("rank 0, which serves the store, does not answer (key)"));
    // Known to hang: there is no more waiting, however long the call might take.
    EXPECT_EQ(store->Get("key", absl::Hours(1)).status().code(), absl::StatusCode::kUnavailable);
  }
  let_go.Notify();
}

// A store in memory, in which the test speaks for rank 1.
class MapStore : public KeyValueStore {
 public:
  absl::Status Set(const std::string& key, const std::string& value) override {
    absl::MutexLock lock(&mutex_);
    values_[key] = value;
    return absl::OkStatus();
  }
  absl::StatusOr<std::string> Get(const std::string& key, absl::Duration) override {
    absl::MutexLock lock(&mutex_);
    const auto found = values_.find(key);
    if (found == values_.end()) return absl::DeadlineExceededError(key);
    return found->second;
  }
  absl::StatusOr<bool> Contains(const std::string& key) override {
    absl::MutexLock lock(&mutex_);
    return values_.contains(key);
  }
  absl::Status Delete(const std::string&) override { return absl::OkStatus(); }
  absl::StatusOr<int64_t> Count(const std::string&) override { return 1; }

 private:
  absl::Mutex mutex_;
  std::map<std::string, std::string> values_ ABSL_GUARDED_BY(mutex_);
};

class WatchedRankTest : public ::testing::Test {
 protected:
  WatchedRankTest() {
    EXPECT_TRUE(store_->Set("group/gather/0/1", "here").ok());
    EXPECT_TRUE(gather_.Meet(absl::Seconds(1)).ok());
  }

  const std::shared_ptr<MapStore> store_ = std::make_shared<MapStore>();
  StoreGather gather_{store_, "group", /*rank=*/0, /*size=*/2, absl::Seconds(1)};
};

TEST_F(WatchedRankTest, ARankThatSaysItIsGoneEndsWaitsOfAllKinds) {
  absl::Notification woken;
  const StoreGather::Watch watch(&gather_, [&] { woken.Notify(); });
  ASSERT_TRUE(store_->Set("group/gone/1", "the disk is full").ok());
  woken.WaitForNotification();
  for (const absl::Status& status :
       {gather_.Lost(), gather_.Await("no such key", absl::InfiniteFuture()).status()}) {
    EXPECT_EQ(status, absl::UnavailableError("rank 1 of 2 is gone: the disk is full"));
  }
}

TEST_F(WatchedRankTest, ARankWhoseHeartStopsEndsWaitsOfAllKinds) {
  absl::Notification woken;
  const StoreGather::Watch watch(&gather_, [&] { woken.Notify(); });
  ASSERT_TRUE(store_->Set("group/alive/1", "7").ok());
  woken.WaitForNotification();
  EXPECT_EQ(gather_.Await("no such key", absl::InfiniteFuture()).status(),
            absl::UnavailableError("rank 1 of 2 is gone: it has been silent for 1s"));
}

TEST_F(WatchedRankTest, ALossBeforeTheWatchWakesItAtOnce) {
  ASSERT_TRUE(store_->Set("group/gone/1", "the disk is full").ok());
  while (gather_.Lost().ok()) absl::SleepFor(absl::Milliseconds(1));
  bool woken = false;
  const StoreGather::Watch watch(&gather_, [&] { woken = true; });
  EXPECT_TRUE(woken);
}

TEST_F(WatchedRankTest, ARankThatLeftInGoodOrderIsNoLoss) {
  ASSERT_TRUE(store_->Set("group/gone/1", "it left").ok());
  EXPECT_TRUE(gather_.Leave().ok());
  EXPECT_TRUE(gather_.Lost().ok());
}

// A store that rank 0 takes with it once it has answered for itself.
class LostStore : public KeyValueStore {
 public:
  absl::Status Set(const std::string&, const std::string&) override { return absl::OkStatus(); }
  absl::StatusOr<std::string> Get(const std::string&, absl::Duration) override { return "x"; }
  absl::StatusOr<bool> Contains(const std::string& key) override {
    if (absl::EndsWith(key, "/0")) return true;
    return absl::UnavailableError("rank 0, which serves the store, is gone: reset by peer");
  }
  absl::Status Delete(const std::string&) override { return absl::OkStatus(); }
  absl::StatusOr<int64_t> Count(const std::string&) override { return 1; }
};

TEST(StoreGatherTest, ALostStoreIsNotTheFaultOfTheRankThatIsWaitedFor) {
  StoreGather gather(std::make_shared<LostStore>(), "group", /*rank=*/1, /*size=*/3,
                     absl::Seconds(5));
  const absl::Status status = gather.AllGather("x").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(status.message(), "rank 0, which serves the store, is gone: reset by peer");
}

TEST(CollectiveTest, OneRankNeedsNoOther) {
  auto collective = CreateCollective({});
  ASSERT_TRUE(collective.ok()) << collective.status();
  std::vector<float> values = {1, 2};
  ASSERT_TRUE((*collective)->AllReduceSum({values.data(), values.size()}).ok());
  EXPECT_THAT(values, ElementsAre(1, 2));
}

TEST(CollectiveTest, RefusesWhatCannotBe) {
  CollectiveOptions options;
  options.rank = 2;
  options.size = 2;
  EXPECT_EQ(CreateCollective(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.rank = 0;
  options.backend = "mpi";
  EXPECT_THAT(std::string(CreateCollective(options).status().message()),
              HasSubstr("backend `mpi`: expected gloo or nccl"));
}

}  // namespace
}  // namespace ddpo
