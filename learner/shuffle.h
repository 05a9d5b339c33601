#pragma once

#include <cstdint>
#include <vector>

namespace ddpo {

// Which pass over which epoch's samples; together with the run's seed it determines the orders.
struct ShuffleKey {
  uint64_t run_seed = 0;
  int64_t epoch = 0;
  int64_t inner_epoch = 0;
  // Whose samples: each rank shuffles its own share.
  int rank = 0;
};

// A permutation of 0 … count−1: the order in which a pass takes its samples.
std::vector<int64_t> ShuffleSamples(const ShuffleKey& key, int64_t count);

// For each of `count` samples, independently, a permutation of 0 … num_steps−1 of which the first
// max(1, ⌊num_steps · fraction⌋) are kept: the denoising steps that it trains at, in order.
// The same on every machine and standard library.
std::vector<std::vector<int64_t>> ShuffleTimesteps(const ShuffleKey& key, int64_t count,
                                                   int64_t num_steps, double fraction);

}  // namespace ddpo
