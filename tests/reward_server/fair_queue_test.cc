#include "reward_server/fair_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace ddpo {
namespace {

using ::testing::ElementsAre;

std::vector<int> PopAll(FairQueue<int>* queue) {
  std::vector<int> elements;
  while (!queue->empty()) elements.push_back(queue->Pop());
  return elements;
}

TEST(FairQueueTest, KeepsTheOrderOfOneCaller) {
  FairQueue<int> queue;
  for (int i = 0; i < 5; ++i) queue.Push("a", i);
  EXPECT_EQ(queue.size(), 5u);
  EXPECT_THAT(PopAll(&queue), ElementsAre(0, 1, 2, 3, 4));
}

TEST(FairQueueTest, ServesCallersInTurnHoweverMuchOneHas) {
  FairQueue<int> queue;
  for (int i = 0; i < 4; ++i) queue.Push("busy", i);
  queue.Push("modest", 10);
  queue.Push("other", 20);
  queue.Push("other", 21);
  EXPECT_THAT(PopAll(&queue), ElementsAre(0, 10, 20, 1, 21, 2, 3));
}

TEST(FairQueueTest, ACallerWhoComesBackTakesItsPlaceBehindTheOthers) {
  FairQueue<int> queue;
  queue.Push("a", 0);
  queue.Push("b", 10);
  EXPECT_EQ(queue.Pop(), 0);
  queue.Push("a", 1);
  EXPECT_THAT(PopAll(&queue), ElementsAre(10, 1));
}

TEST(FairQueueTest, ExtractTakesOutWhatMatchesAndKeepsTheRestInOrder) {
  FairQueue<int> queue;
  for (int i = 0; i < 4; ++i) queue.Push("a", i);
  queue.Push("b", 11);
  queue.Push("c", 20);
  const std::vector<int> odd = queue.Extract([](int element) { return element % 2 == 1; });
  EXPECT_THAT(odd, ElementsAre(1, 3, 11));
  EXPECT_EQ(queue.size(), 3u);
  EXPECT_THAT(PopAll(&queue), ElementsAre(0, 20, 2));
}

}  // namespace
}  // namespace ddpo
