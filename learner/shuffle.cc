#include "learner/shuffle.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/random.h"

namespace ddpo {
namespace {

std::mt19937_64 MakeGenerator(const ShuffleKey& key, absl::string_view purpose) {
  const std::string of_rank =
      key.rank == 0 ? std::string(purpose) : absl::StrCat(purpose, " of rank ", key.rank);
  return std::mt19937_64(DeriveSeed(key.run_seed, of_rank, static_cast<uint64_t>(key.epoch),
                                    static_cast<uint64_t>(key.inner_epoch)));
}

// A number in 0 … bound−1, each equally likely. The standard fixes mt19937_64's output but not what
// std::uniform_int_distribution and std::shuffle make of it.
uint64_t Draw(std::mt19937_64& generator, uint64_t bound) {
  const uint64_t limit = UINT64_MAX - UINT64_MAX % bound;
  uint64_t value = generator();
  while (value >= limit) value = generator();
  return value % bound;
}

std::vector<int64_t> Permutation(std::mt19937_64& generator, int64_t count) {
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = count - 1; i > 0; --i) std::swap(order[i], order[Draw(generator, i + 1)]);
  return order;
}

}  // namespace

std::vector<int64_t> ShuffleSamples(const ShuffleKey& key, int64_t count) {
  std::mt19937_64 generator = MakeGenerator(key, "order of samples");
  return Permutation(generator, count);
}

std::vector<std::vector<int64_t>> ShuffleTimesteps(const ShuffleKey& key, int64_t count,
                                                   int64_t num_steps, double fraction) {
  std::mt19937_64 generator = MakeGenerator(key, "order of timesteps");
  const auto kept = std::clamp<int64_t>(
      static_cast<int64_t>(static_cast<double>(num_steps) * fraction), 1, num_steps);
  std::vector<std::vector<int64_t>> orders(count);
  for (std::vector<int64_t>& order : orders) {
    order = Permutation(generator, num_steps);
    order.resize(kept);
  }
  return orders;
}

}  // namespace ddpo
