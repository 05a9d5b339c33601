#include "learner/gradient_workers.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace ddpo {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// Leaves that require gradients, the same in every test.
const NamedTensors& Parameters() {
  static const auto& parameters =
      *new NamedTensors{{"a", at::linspace(-1, 1, 6).view({2, 3}).requires_grad_(true)},
                        {"b", at::linspace(0.1, 0.9, 4).requires_grad_(true)}};
  return parameters;
}

// A loss with gradients of every magnitude, so that another order of additions shows.
at::Tensor UnevenLoss(int64_t unit, const NamedTensors& parameters = Parameters()) {
  const double scale = std::pow(10.0, static_cast<double>(unit % 7) - 3);
  return scale * ((parameters.at("a") * static_cast<double>(unit + 1)).sin().sum() +
                  (parameters.at("b") * 1.7).exp().sum());
}

GradientWorkers::Units MakeUnits(int64_t count) {
  GradientWorkers::Units units;
  units.count = count;
  units.loss = [](int64_t unit) -> absl::StatusOr<at::Tensor> { return UnevenLoss(unit); };
  units.name = [](int64_t unit) { return absl::StrCat("unit ", unit); };
  return units;
}

// What one thread accumulates in the tensors' .grad.
at::Tensor AccumulateSerially(int64_t count) {
  NamedTensors leaves;
  for (const auto& [key, tensor] : Parameters()) leaves[key] = tensor.detach().requires_grad_(true);
  for (int64_t unit = 0; unit < count; ++unit) UnevenLoss(unit, leaves).backward();
  return at::cat({leaves.at("a").grad().flatten(), leaves.at("b").grad().flatten()});
}

class NumberOfWorkersTest : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Workers, NumberOfWorkersTest, ::testing::Values(1, 2, 3, 8));

TEST_P(NumberOfWorkersTest, TheSumHasTheBitsOfSerialAccumulation) {
  GradientWorkers workers(GetParam());
  for (int64_t count : {1, 2, 50}) {
    const at::Tensor sum = workers.SumGradients(Parameters(), MakeUnits(count)).value();
    EXPECT_TRUE(at::equal(sum, AccumulateSerially(count))) << count;
  }
}

TEST_P(NumberOfWorkersTest, TheFirstFailedUnitGivesTheError) {
  GradientWorkers workers(GetParam());
  GradientWorkers::Units units = MakeUnits(40);
  units.loss = [](int64_t unit) -> absl::StatusOr<at::Tensor> {
    if (unit >= 11) return absl::DataLossError(absl::StrCat("broken at ", unit));
    return UnevenLoss(unit);
  };
  const absl::Status status = workers.SumGradients(Parameters(), units).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(status.message(), "unit 11: broken at 11");
  // The workers go on with the next call.
  EXPECT_TRUE(workers.SumGradients(Parameters(), MakeUnits(5)).ok());
}

TEST(GradientWorkersTest, ATensorThatTheLossDoesNotTouchHasGradientZero) {
  GradientWorkers workers(2);
  GradientWorkers::Units units = MakeUnits(3);
  units.loss = [](int64_t) -> absl::StatusOr<at::Tensor> { return Parameters().at("b").sum(); };
  const at::Tensor sum = workers.SumGradients(Parameters(), units).value();
  EXPECT_TRUE(at::equal(sum, at::cat({at::zeros({6}), at::full({4}, 3.0)})));
}

TEST(GradientWorkersTest, ALossThatIsNotANumberIsAnErrorWithTheUnitsName) {
  GradientWorkers workers(2);
  GradientWorkers::Units units = MakeUnits(9);
  units.loss = [](int64_t unit) -> absl::StatusOr<at::Tensor> {
    const double factor = unit == 4 ? std::numeric_limits<double>::infinity() : 1;
    return UnevenLoss(unit) * factor;
  };
  const absl::Status status = workers.SumGradients(Parameters(), units).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(status.message()),
              AllOf(StartsWith("unit 4: the loss is "), HasSubstr("inf")));
}

TEST(GradientWorkersTest, AGradientThatIsNotANumberNamesTheTensor) {
  GradientWorkers workers(1);
  GradientWorkers::Units units = MakeUnits(3);
  // √0 is 0, but its slope is infinite.
  units.loss = [](int64_t unit) -> absl::StatusOr<at::Tensor> {
    if (unit < 2) return UnevenLoss(unit);
    return (Parameters().at("b") * 0).sqrt().sum();
  };
  EXPECT_EQ(workers.SumGradients(Parameters(), units).status(),
            absl::OutOfRangeError("unit 2: the gradient of b is not finite"));
}

TEST(GradientWorkersTest, WhatAUnitThrowsIsAStatus) {
  GradientWorkers workers(2);
  GradientWorkers::Units units = MakeUnits(3);
  units.loss = [](int64_t) -> absl::StatusOr<at::Tensor> {
    return Parameters().at("a").view({5}).sum();  // c10::Error: six elements
  };
  const absl::Status status = workers.SumGradients(Parameters(), units).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), StartsWith("unit 0: "));
}

TEST(GradientWorkersTest, WorkersComputeWithOneThreadAndLeaveTheCallersSettingAlone) {
  const int before = at::get_num_threads();
  at::set_num_threads(3);
  {
    GradientWorkers workers(2);
    GradientWorkers::Units units = MakeUnits(4);
    units.loss = [](int64_t unit) -> absl::StatusOr<at::Tensor> {
      if (at::get_num_threads() != 1) return absl::InternalError("several threads");
      return UnevenLoss(unit);
    };
    EXPECT_TRUE(workers.SumGradients(Parameters(), units).ok());
  }
  EXPECT_EQ(at::get_num_threads(), 3);
  at::set_num_threads(before);
}

TEST_P(NumberOfWorkersTest, RunsEachUnitOnceWithoutGradients) {
  GradientWorkers workers(GetParam());
  std::vector<at::Tensor> results(20);
  const auto run = [&](int64_t unit) {
    results[unit] = UnevenLoss(unit);
    return absl::OkStatus();
  };
  ASSERT_TRUE(workers.ForEach(20, run).ok());
  for (int64_t unit = 0; unit < 20; ++unit) {
    EXPECT_FALSE(results[unit].requires_grad());
    EXPECT_TRUE(at::equal(results[unit], UnevenLoss(unit).detach())) << unit;
  }
  EXPECT_TRUE(workers.ForEach(0, run).ok());
}

TEST_P(NumberOfWorkersTest, TheFirstUnitThatFailsToRunGivesTheError) {
  GradientWorkers workers(GetParam());
  const absl::Status status = workers.ForEach(40, [](int64_t unit) {
    return unit >= 11 ? absl::DataLossError(absl::StrCat("broken at ", unit)) : absl::OkStatus();
  });
  EXPECT_EQ(status.message(), "broken at 11");
}

TEST(GradientWorkersTest, NoUnitsAreAnError) {
  GradientWorkers workers(1);
  EXPECT_EQ(workers.SumGradients(Parameters(), MakeUnits(0)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace ddpo
