#include "common/base/statistics.h"

#include <cmath>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"

namespace ddpo {
namespace {

double SumOfSquaredDeviations(absl::Span<const double> values) {
  const double mean = Mean(values);
  double sum = 0;
  for (const double value : values) sum += (value - mean) * (value - mean);
  return sum;
}

// The continued fraction of the incomplete beta function, by Lentz's method.
// Source: Press et al., Numerical Recipes, 3rd edition, section 6.4.
double BetaContinuedFraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300;
  constexpr double kPrecision = 1e-15;
  const auto guard = [](double v) { return std::abs(v) < kTiny ? kTiny : v; };
  double c = 1;
  double d = 1 / guard(1 - (a + b) * x / (a + 1));
  double result = d;
  for (int m = 1; m < 10000; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / guard(1 + even * d);
    c = guard(1 + even / c);
    result *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / guard(1 + odd * d);
    c = guard(1 + odd / c);
    result *= d * c;
    if (std::abs(d * c - 1) < kPrecision) break;
  }
  return result;
}

// I_x(a, b).
double RegularizedIncompleteBeta(double a, double b, double x) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  const double front = std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) +
                                a * std::log(x) + b * std::log1p(-x));
  return x < (a + 1) / (a + b + 2) ? front * BetaContinuedFraction(a, b, x) / a
                                   : 1 - front * BetaContinuedFraction(b, a, 1 - x) / b;
}

}  // namespace

double Mean(absl::Span<const double> values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

double PopulationStddev(absl::Span<const double> values) {
  if (values.empty()) return 0;
  return std::sqrt(SumOfSquaredDeviations(values) / static_cast<double>(values.size()));
}

double SampleStddev(absl::Span<const double> values) {
  if (values.size() < 2) return 0;
  return std::sqrt(SumOfSquaredDeviations(values) / static_cast<double>(values.size() - 1));
}

absl::StatusOr<PairedTTest> ComputePairedTTest(absl::Span<const double> before,
                                               absl::Span<const double> after) {
  if (before.size() != after.size() || before.size() < 2) {
    return absl::InvalidArgumentError(absl::StrCat("a paired t-test of ", before.size(), " and ",
                                                   after.size(),
                                                   " values: expected two or more pairs"));
  }
  std::vector<double> differences;
  for (size_t i = 0; i < before.size(); ++i) differences.push_back(after[i] - before[i]);
  const double n = static_cast<double>(differences.size());
  PairedTTest test;
  test.mean_difference = Mean(differences);
  const double error = SampleStddev(differences) / std::sqrt(n);
  if (error == 0) {
    test.p = test.mean_difference == 0 ? 1 : 0;
    test.t = test.mean_difference == 0
                 ? 0
                 : std::copysign(std::numeric_limits<double>::infinity(), test.mean_difference);
    return test;
  }
  test.t = test.mean_difference / error;
  const double degrees = n - 1;
  test.p = RegularizedIncompleteBeta(degrees / 2, 0.5, degrees / (degrees + test.t * test.t));
  return test;
}

}  // namespace ddpo
