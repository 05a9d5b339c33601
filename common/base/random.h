#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

namespace ddpo {

// SplitMix64's output function: a bijection that scrambles well.
// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
constexpr uint64_t SplitMix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// A seed that follows from the run's seed, what it is for, and two counters, on every machine.
// Different purposes, which are not empty, give unrelated streams.
constexpr uint64_t DeriveSeed(uint64_t run_seed, absl::string_view purpose, uint64_t a = 0,
                              uint64_t b = 0) {
  uint64_t hash = SplitMix64(run_seed);
  for (const char c : purpose) hash = SplitMix64(hash ^ static_cast<unsigned char>(c));
  return SplitMix64(SplitMix64(hash ^ SplitMix64(a)) ^ SplitMix64(b ^ 0x5851f42d4c957f2d));
}

}  // namespace ddpo
