#include "common/rpc/retry.h"

#include <vector>

#include "common/base/fake_clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ddpo {
namespace {

using ::testing::AllOf;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::Le;

class RetryTest : public ::testing::Test {
 protected:
  RetryTest() { options_.clock = &clock_; }

  // Calls `CallWithRetry` with an attempt that gives these statuses in turn, the last one for ever.
  absl::Status Call(const std::vector<absl::Status>& answers) {
    return CallWithRetry("deliver sample 3", options_, [&](absl::Time deadline) {
      starts_.push_back(clock_.Now());
      deadlines_.push_back(deadline);
      return answers[std::min(starts_.size(), answers.size()) - 1];
    });
  }

  FakeClock clock_;
  RetryOptions options_;
  std::vector<absl::Time> starts_;
  std::vector<absl::Time> deadlines_;
};

TEST_F(RetryTest, ReturnsTheFirstSuccess) {
  EXPECT_TRUE(Call({absl::OkStatus()}).ok());
  EXPECT_EQ(starts_.size(), 1u);
}

TEST_F(RetryTest, TriesAgainWhatMayGoAway) {
  EXPECT_TRUE(
      Call({absl::UnavailableError("down"), absl::DeadlineExceededError("slow"),
            absl::ResourceExhaustedError("full"), absl::AbortedError("raced"), absl::OkStatus()})
          .ok());
  EXPECT_EQ(starts_.size(), 5u);
}

TEST_F(RetryTest, EndsAtOnceWithWhatWillNotGoAway) {
  const absl::Status status = Call({absl::UnavailableError("down"),
                                    absl::InvalidArgumentError("wrong shape"), absl::OkStatus()});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "deliver sample 3: wrong shape (attempt 2)");
  EXPECT_EQ(starts_.size(), 2u);
}

TEST_F(RetryTest, GivesEachAttemptItsOwnDeadline) {
  options_.attempt_timeout = absl::Seconds(7);
  EXPECT_TRUE(
      Call({absl::UnavailableError(""), absl::UnavailableError(""), absl::OkStatus()}).ok());
  for (size_t i = 0; i < starts_.size(); ++i) {
    EXPECT_EQ(deadlines_[i] - starts_[i], absl::Seconds(7));
  }
}

TEST_F(RetryTest, PausesDoubleUpToTheirMostAndShrinkByUpToHalf) {
  options_.first_pause = absl::Milliseconds(100);
  options_.max_pause = absl::Milliseconds(400);
  EXPECT_TRUE(Call({absl::UnavailableError(""), absl::UnavailableError(""),
                    absl::UnavailableError(""), absl::UnavailableError(""), absl::OkStatus()})
                  .ok());
  const int longest[] = {100, 200, 400, 400};
  ASSERT_EQ(starts_.size(), 5u);
  for (int i = 0; i < 4; ++i) {
    EXPECT_THAT(starts_[i + 1] - starts_[i],
                AllOf(Ge(absl::Milliseconds(longest[i]) / 2), Le(absl::Milliseconds(longest[i]))));
  }
}

TEST_F(RetryTest, ClientsWithOtherSeedsComeBackAtOtherTimes) {
  const auto pause = [&](uint64_t seed) {
    options_.jitter_seed = seed;
    starts_.clear();
    EXPECT_TRUE(Call({absl::UnavailableError(""), absl::OkStatus()}).ok());
    return starts_[1] - starts_[0];
  };
  const absl::Duration one = pause(1);
  EXPECT_NE(one, pause(2));
  EXPECT_EQ(one, pause(1));
}

TEST_F(RetryTest, GivesUpWithTheLastErrorAndSaysHowOftenItTried) {
  options_.give_up_after = absl::Seconds(10);
  const absl::Time start = clock_.Now();
  const absl::Status status = Call({absl::UnavailableError("connection refused")});
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("deliver sample 3: connection refused"), HasSubstr("(attempt ")));
  EXPECT_GT(starts_.size(), 5u);
  EXPECT_LE(starts_.back() - start, absl::Seconds(10));
}

TEST_F(RetryTest, EndsWhenTheProgramIsAskedToEnd) {
  int asked = 0;
  options_.cancelled = [&] { return ++asked > 2; };
  const absl::Status status = Call({absl::UnavailableError("down")});
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(starts_.size(), 2u);
}

}  // namespace
}  // namespace ddpo
