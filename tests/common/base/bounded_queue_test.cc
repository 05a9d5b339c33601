#include "common/base/bounded_queue.h"

#include <algorithm>
#include <memory>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ddpo {
namespace {

using ::testing::ElementsAre;

TEST(BoundedQueueTest, HandsItemsOutInTheirOrder) {
  BoundedQueue<int> queue(3);
  for (const int item : {1, 2, 3}) ASSERT_TRUE(queue.Push(item).ok());
  EXPECT_EQ(queue.size(), 3u);
  for (const int item : {1, 2, 3}) EXPECT_EQ(*queue.Pop(), item);
}

TEST(BoundedQueueTest, CarriesItemsThatCannotBeCopied) {
  BoundedQueue<std::unique_ptr<int>> queue(1);
  ASSERT_TRUE(queue.Push(std::make_unique<int>(7)).ok());
  EXPECT_EQ(**queue.Pop(), 7);
}

TEST(BoundedQueueTest, RefusesAtOnceWhereNobodyWaits) {
  BoundedQueue<int> queue(1);
  EXPECT_TRUE(queue.TryPush(1).ok());
  EXPECT_EQ(queue.TryPush(2).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(*queue.Pop(), 1);
}

TEST(BoundedQueueTest, GivesUpAtTheDeadline) {
  BoundedQueue<int> queue(1);
  EXPECT_EQ(queue.PopBefore(absl::InfinitePast()).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  // There is room, so the deadline does not matter.
  ASSERT_TRUE(queue.PushBefore(1, absl::InfinitePast()).ok());
  EXPECT_EQ(queue.PushBefore(2, absl::InfinitePast()).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(queue.size(), 1u);
}

TEST(BoundedQueueTest, LetsAWaitingPusherInOnceThereIsRoom) {
  BoundedQueue<int> queue(1);
  ASSERT_TRUE(queue.Push(1).ok());
  std::jthread pusher([&] { EXPECT_TRUE(queue.Push(2).ok()); });
  EXPECT_EQ(*queue.Pop(), 1);
  EXPECT_EQ(*queue.Pop(), 2);
}

TEST(BoundedQueueTest, CloseDrainsAndRefuses) {
  BoundedQueue<int> queue(2);
  ASSERT_TRUE(queue.Push(1).ok());
  queue.Close();
  EXPECT_EQ(queue.Push(2).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(queue.TryPush(2).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(*queue.Pop(), 1);
  EXPECT_EQ(queue.Pop().status().code(), absl::StatusCode::kCancelled);
}

TEST(BoundedQueueTest, AbortDropsWhatIsQueued) {
  BoundedQueue<std::shared_ptr<int>> queue(2);
  auto item = std::make_shared<int>(1);
  const std::weak_ptr<int> watch = item;
  ASSERT_TRUE(queue.Push(std::move(item)).ok());
  queue.Abort();
  EXPECT_TRUE(watch.expired());
  EXPECT_EQ(queue.Pop().status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(queue.Push(nullptr).code(), absl::StatusCode::kCancelled);
}

// Whether the threads wait already when the end comes or only call afterwards, the answer is the
// same.
TEST(BoundedQueueTest, CloseAndAbortReleaseEveryoneWhoWaits) {
  for (const bool abort : {false, true}) {
    BoundedQueue<int> empty(1);
    BoundedQueue<int> full(1);
    ASSERT_TRUE(full.Push(0).ok());
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back(
          [&] { EXPECT_EQ(empty.Pop().status().code(), absl::StatusCode::kCancelled); });
      threads.emplace_back([&] { EXPECT_EQ(full.Push(1).code(), absl::StatusCode::kCancelled); });
    }
    abort ? empty.Abort() : empty.Close();
    abort ? full.Abort() : full.Close();
    threads.clear();
    EXPECT_EQ(full.size(), abort ? 0u : 1u);
  }
}

TEST(BoundedQueueTest, LosesAndDoublesNothingAmongManyThreads) {
  constexpr int kThreads = 4;
  constexpr int kItems = 500;
  BoundedQueue<int> queue(8);
  std::vector<std::vector<int>> taken(kThreads);
  {
    std::vector<std::jthread> consumers;
    for (int i = 0; i < kThreads; ++i) {
      consumers.emplace_back([&, i] {
        for (auto item = queue.Pop(); item.ok(); item = queue.Pop()) {
          EXPECT_LE(queue.size(), 8u);
          taken[i].push_back(*item);
        }
      });
    }
    {
      std::vector<std::jthread> producers;
      for (int i = 0; i < kThreads; ++i) {
        producers.emplace_back([&, i] {
          for (int n = 0; n < kItems; ++n) EXPECT_TRUE(queue.Push(i * kItems + n).ok());
        });
      }
    }
    queue.Close();
  }
  std::vector<int> all;
  for (const std::vector<int>& items : taken) {
    all.insert(all.end(), items.begin(), items.end());
    // Items of one producer reach one consumer in their order.
    for (int producer = 0; producer < kThreads; ++producer) {
      std::vector<int> own;
      std::copy_if(items.begin(), items.end(), std::back_inserter(own),
                   [&](int item) { return item / kItems == producer; });
      EXPECT_TRUE(std::is_sorted(own.begin(), own.end()));
    }
  }
  std::sort(all.begin(), all.end());
  ASSERT_EQ(all.size(), static_cast<size_t>(kThreads * kItems));
  for (size_t i = 0; i < all.size(); ++i) ASSERT_EQ(all[i], static_cast<int>(i));
}

}  // namespace
}  // namespace ddpo
