#pragma once

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace ddpo {

double Mean(absl::Span<const double> values);
// The standard deviation of the values themselves (numpy's default, ddof = 0).
double PopulationStddev(absl::Span<const double> values);
// The estimate of the distribution's that they were drawn from (ddof = 1); 0 for one value.
double SampleStddev(absl::Span<const double> values);

struct PairedTTest {
  double mean_difference = 0;  // of after − before
  double t = 0;
  double p = 1;  // two-sided
};

// Student's paired t-test. INVALID_ARGUMENT for lengths that differ or fewer than two pairs. Where
// all differences are equal, p is 1 if they are 0 and 0 otherwise.
absl::StatusOr<PairedTTest> ComputePairedTTest(absl::Span<const double> before,
                                               absl::Span<const double> after);

}  // namespace ddpo
