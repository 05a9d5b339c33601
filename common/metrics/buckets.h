#pragma once

#include <prometheus/histogram.h>

namespace ddpo {

// Upper bounds, in seconds, for work from a reward of a small image to the update of a large model.
inline prometheus::Histogram::BucketBoundaries PhaseSeconds() {
  return {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800};
}

// Upper bounds, in seconds, for one step of a reward server: from a JPEG's size to a language
// model's answer.
inline prometheus::Histogram::BucketBoundaries ScoringSeconds() {
  return {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60};
}

inline prometheus::Histogram::BucketBoundaries BatchSizes() {
  return {1, 2, 4, 8, 16, 32, 64, 128, 256, 512};
}

}  // namespace ddpo
