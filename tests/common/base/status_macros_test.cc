#include "common/base/status_macros.h"

#include <memory>

#include "gtest/gtest.h"

namespace ddpo {
namespace {

absl::StatusOr<std::unique_ptr<int>> Half(int value) {
  if (value % 2 != 0) return absl::InvalidArgumentError("odd");
  return std::make_unique<int>(value / 2);
}

absl::StatusOr<int> Quarter(int value) {
  DDPO_ASSIGN_OR_RETURN(const std::unique_ptr<int> half, Half(value));
  DDPO_ASSIGN_OR_RETURN(const std::unique_ptr<int> quarter, Half(*half));
  return *quarter;
}

absl::Status CheckDivisibleByFour(int value) {
  DDPO_RETURN_IF_ERROR(Quarter(value).status());
  return absl::OkStatus();
}

TEST(StatusMacrosTest, GoOnWithTheValueAndReturnTheError) {
  EXPECT_EQ(*Quarter(12), 3);
  EXPECT_EQ(Quarter(6).status(), absl::InvalidArgumentError("odd"));
  EXPECT_TRUE(CheckDivisibleByFour(8).ok());
  EXPECT_EQ(CheckDivisibleByFour(5), absl::InvalidArgumentError("odd"));
}

}  // namespace
}  // namespace ddpo
