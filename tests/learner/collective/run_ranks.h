#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/free_port.h"
#include "learner/collective/collective.h"

namespace ddpo::testing {

// Options of one rank of a group that meets at `port`; of them the backend and the timeouts are
// those of `common`.
inline CollectiveOptions RankOptions(int rank, int size, int port, CollectiveOptions common = {}) {
  common.rank = rank;
  common.size = size;
  common.store_port = static_cast<uint16_t>(port);
  common.device_index = rank;
  // The other ranks hear of it.
  common.generation = rank == 0 ? 17 : 0;
  return common;
}

// Runs `body(collective)` as every rank of a group, each on a thread of its own. A rank ends, as if
// it had died, when its body returns; rank 0 once all have.
template <typename Body>
void RunRanks(int size, const CollectiveOptions& common, Body body) {
  const int port = *FreePort();
  // Serves the store that the others need to the end.
  std::unique_ptr<Collective> rank_0;
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < size; ++rank) {
    ranks.emplace_back([=, &rank_0] {
      auto collective = CreateCollective(RankOptions(rank, size, port, common));
      ASSERT_TRUE(collective.ok()) << collective.status();
      body(**collective);
      if (rank == 0) rank_0 = *std::move(collective);
    });
  }
  for (std::thread& rank : ranks) rank.join();
}

// A body whose ranks wait for each other before they end: one that ends while another is still in
// its last call breaks that call.
template <typename Body>
auto Together(Body body) {
  return [body = std::move(body)](Collective& collective) {
    body(collective);
    EXPECT_TRUE(collective.AllGather("done").ok());
  };
}

}  // namespace ddpo::testing
