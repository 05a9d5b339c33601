#include "learner/gradient_workers.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"

namespace ddpo {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

LoraWeights MakeLora() {
  LoraWeights lora;
  lora.rank = 1;
  lora.alpha = 1;
  lora.tensors = {{"a", at::linspace(-1, 1, 6).view({2, 3})}, {"b", at::linspace(0.1, 0.9, 4)}};
  return lora;
}

// A loss with gradients of every magnitude, so that another order of additions shows.
at::Tensor UnevenLoss(int64_t unit, const LoraWeights& lora) {
  const double scale = std::pow(10.0, static_cast<double>(unit % 7) - 3);
  return scale * ((lora.tensors.at("a") * static_cast<double>(unit + 1)).sin().sum() +
                  (lora.tensors.at("b") * 1.7).exp().sum());
}

GradientWorkers::Units MakeUnits(int64_t count) {
  GradientWorkers::Units units;
  units.count = count;
  units.loss = [](int64_t unit, const LoraWeights& lora) -> absl::StatusOr<at::Tensor> {
    return UnevenLoss(unit, lora);
  };
  units.name = [](int64_t unit) { return absl::StrCat("unit ", unit); };
  return units;
}

// What one thread accumulates in the tensors' .grad.
at::Tensor AccumulateSerially(int64_t count) {
  LoraWeights lora = MakeLora();
  for (auto& [key, tensor] : lora.tensors) tensor.requires_grad_(true);
  for (int64_t unit = 0; unit < count; ++unit) UnevenLoss(unit, lora).backward();
  return at::cat({lora.tensors.at("a").grad().flatten(), lora.tensors.at("b").grad().flatten()});
}

class NumberOfWorkersTest : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Workers, NumberOfWorkersTest, ::testing::Values(1, 2, 3, 8));

TEST_P(NumberOfWorkersTest, TheSumHasTheBitsOfSerialAccumulation) {
  GradientWorkers workers(GetParam());
  for (int64_t count : {1, 2, 50}) {
    const at::Tensor sum = workers.SumGradients(MakeLora(), MakeUnits(count)).value();
    EXPECT_TRUE(at::equal(sum, AccumulateSerially(count))) << count;
  }
}

TEST_P(NumberOfWorkersTest, TheFirstFailedUnitGivesTheError) {
  GradientWorkers workers(GetParam());
  GradientWorkers::Units units = MakeUnits(40);
  units.loss = [](int64_t unit, const LoraWeights& lora) -> absl::StatusOr<at::Tensor> {
    if (unit >= 11) return absl::DataLossError(absl::StrCat("broken at ", unit));
    return UnevenLoss(unit, lora);
  };
  const absl::Status status = workers.SumGradients(MakeLora(), units).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(status.message(), "unit 11: broken at 11");
  // The workers go on with the next call.
  EXPECT_TRUE(workers.SumGradients(MakeLora(), MakeUnits(5)).ok());
}

TEST(GradientWorkersTest, ATensorThatTheLossDoesNotTouchHasGradientZero) {
  GradientWorkers workers(2);
  GradientWorkers::Units units = MakeUnits(3);
  units.loss = [](int64_t, const LoraWeights& lora) -> absl::StatusOr<at::Tensor> {
    return lora.tensors.at("b").sum();
  };
  const at::Tensor sum = workers.SumGradients(MakeLora(), units).value();
  EXPECT_TRUE(at::equal(sum, at::cat({at::zeros({6}), at::full({4}, 3.0)})));
}

TEST(GradientWorkersTest, ALossThatIsNotANumberIsAnErrorWithTheUnitsName) {
  GradientWorkers workers(2);
  GradientWorkers::Units units = MakeUnits(9);
  units.loss = [](int64_t unit, const LoraWeights& lora) -> absl::StatusOr<at::Tensor> {
    const double factor = unit == 4 ? std::numeric_limits<double>::infinity() : 1;
    return UnevenLoss(unit, lora) * factor;
  };
  const absl::Status status = workers.SumGradients(MakeLora(), units).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()),
              AllOf(StartsWith("unit 4: the loss is "), HasSubstr("inf")));
}

TEST(GradientWorkersTest, AGradientThatIsNotANumberNamesTheTensor) {
  GradientWorkers workers(1);
  GradientWorkers::Units units = MakeUnits(3);
  // √0 is 0, but its slope is infinite.
  units.loss = [](int64_t unit, const LoraWeights& lora) -> absl::StatusOr<at::Tensor> {
    if (unit < 2) return UnevenLoss(unit, lora);
    return (lora.tensors.at("b") * 0).sqrt().sum();
  };
  EXPECT_EQ(workers.SumGradients(MakeLora(), units).status().message(),
            "unit 2: the gradient of b is not finite");
}

TEST(GradientWorkersTest, WhatAUnitThrowsIsAStatus) {
  GradientWorkers workers(2);
  GradientWorkers::Units units = MakeUnits(3);
  units.loss = [](int64_t, const LoraWeights& lora) -> absl::StatusOr<at::Tensor> {
    return lora.tensors.at("a").view({5}).sum();  // c10::Error: six elements
  };
  const absl::Status status = workers.SumGradients(MakeLora(), units).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), StartsWith("unit 0: "));
}

TEST(GradientWorkersTest, WorkersComputeWithOneThreadAndLeaveTheCallersSettingAlone) {
  const int before = at::get_num_threads();
  at::set_num_threads(3);
  {
    GradientWorkers workers(2);
    GradientWorkers::Units units = MakeUnits(4);
    units.loss = [](int64_t unit, const LoraWeights& lora) -> absl::StatusOr<at::Tensor> {
      if (at::get_num_threads() != 1) return absl::InternalError("several threads");
      return UnevenLoss(unit, lora);
    };
    EXPECT_TRUE(workers.SumGradients(MakeLora(), units).ok());
  }
  EXPECT_EQ(at::get_num_threads(), 3);
  at::set_num_threads(before);
}

TEST(GradientWorkersTest, NoUnitsAreAnError) {
  GradientWorkers workers(1);
  EXPECT_EQ(workers.SumGradients(MakeLora(), MakeUnits(0)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace ddpo
