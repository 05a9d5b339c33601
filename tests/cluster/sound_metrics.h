#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <nlohmann/json.hpp>

#include "tests/cluster/process_cluster.h"

namespace ddpo::testing {

// Each epoch once, log-probabilities equal to the bit, and a ledger (of all ranks together) that
// balances.
inline void ExpectSoundMetrics(ProcessCluster& cluster, int epochs, int samples_per_epoch) {
  const auto lines = cluster.Metrics();
  ASSERT_EQ(lines.size(), epochs);
  for (int epoch = 0; epoch < epochs; ++epoch) {
    const auto line = nlohmann::json::parse(lines[epoch]);
    EXPECT_EQ(line["epoch"], epoch);
    EXPECT_EQ(line["logprob_abs_diff_max"], 0.0);
    const auto& ledger = line["ledger"];
    int64_t sum = ledger["trained"].get<int64_t>() + ledger["buffered"].get<int64_t>();
    for (const auto& [reason, count] : ledger["dropped"].items()) sum += count.get<int64_t>();
    EXPECT_EQ(ledger["received"], sum);
    EXPECT_EQ(ledger["trained"], (epoch + 1) * samples_per_epoch);
  }
}

}  // namespace ddpo::testing
