#include "learner/collective/collective.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ddpo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

uint16_t FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), length), 0);
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length), 0);
  close(fd);
  return ntohs(address.sin_port);
}

// Runs `body(collective)` as every rank of a group, each on a thread of its own.
template <typename Body>
void RunRanks(int size, absl::Duration timeout, Body body) {
  const uint16_t port = FreePort();
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < size; ++rank) {
    ranks.emplace_back([=] {
      CollectiveOptions options;
      options.rank = rank;
      options.size = size;
      options.store_port = port;
      options.timeout = timeout;
      auto collective = CreateCollective(options);
      ASSERT_TRUE(collective.ok()) << collective.status();
      body(**collective);
    });
  }
  for (std::thread& rank : ranks) rank.join();
}

// Numbers whose sum depends on the order of addition.
std::vector<float> Awkward(int rank, int elements) {
  std::vector<float> values(elements);
  for (int i = 0; i < elements; ++i) values[i] = 1.0f / static_cast<float>(1 + i * 7 + rank * 3);
  return values;
}

// Fails by a crash when libgloo stands behind libtorch_cpu on this program's link line.
TEST(CollectiveTest, AddsTheBuffersOfAllRanks) {
  RunRanks(4, absl::Seconds(60), [](Collective& collective) {
    std::vector<float> values(10007, static_cast<float>(collective.rank() + 1));
    ASSERT_TRUE(collective.AllReduceSum({values.data(), values.size()}).ok());
    for (float value : values) ASSERT_EQ(value, 10.0f);
  });
}

TEST(CollectiveTest, GivesEveryRankTheSameBitsEachTime) {
  std::vector<std::vector<float>> results(8);
  for (int repetition = 0; repetition < 2; ++repetition) {
    RunRanks(4, absl::Seconds(60), [&](Collective& collective) {
      std::vector<float> values = Awkward(collective.rank(), 3001);
      ASSERT_TRUE(collective.AllReduceSum({values.data(), values.size()}).ok());
      results[repetition * 4 + collective.rank()] = values;
    });
  }
  for (const std::vector<float>& result : results) EXPECT_EQ(result, results[0]);
}

TEST(CollectiveTest, GathersInRankOrder) {
  RunRanks(3, absl::Seconds(60), [](Collective& collective) {
    for (int round = 0; round < 5; ++round) {
      auto values = collective.AllGather(absl::StrCat(round, "-", collective.rank()));
      ASSERT_TRUE(values.ok()) << values.status();
      EXPECT_THAT(*values, ElementsAre(absl::StrCat(round, "-0"), absl::StrCat(round, "-1"),
                                       absl::StrCat(round, "-2")));
    }
  });
}

TEST(CollectiveTest, NamesTheRankThatDiedInAnAllReduce) {
  RunRanks(3, absl::Seconds(5), [](Collective& collective) {
    // Rank 2 dies: its connections close when its object goes.
    if (collective.rank() == 2) return;
    std::vector<float> values(1000, 1.0f);
    const absl::Status status = collective.AllReduceSum({values.data(), values.size()});
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()), HasSubstr("rank 2 of 3 is gone"));
  });
}

TEST(CollectiveTest, NamesTheRankThatHangsInAGather) {
  absl::Notification rank_0_gave_up;
  RunRanks(2, absl::Seconds(1), [&](Collective& collective) {
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
  options.store_port = FreePort();
  options.timeout = absl::Seconds(1);
  auto collective = CreateCollective(options);
  EXPECT_EQ(collective.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(collective.status().message()),
              HasSubstr("rank 1 of 2 did not answer within 1s"));
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
