#include "common/base/logging.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ddpo {
namespace {

using ::testing::HasSubstr;
using ::testing::internal::CaptureStderr;
using ::testing::internal::GetCapturedStderr;

TEST(LoggingTest, WritesTimeLevelProgramAndMessageToStderr) {
  CaptureStderr();
  InitLogging("ddpo-test");
  LogInfo("epoch ", 3, " of {}");
  LogDebug("unseen");
  const std::string log = GetCapturedStderr();
  EXPECT_THAT(
      log, ::testing::ContainsRegex("^[0-9-]+T[0-9:.]+Z .*info.* ddpo-test: epoch 3 of \\{\\}\n"));
  EXPECT_THAT(log, ::testing::Not(HasSubstr("unseen")));
}

TEST(LoggingTest, ObeysTheLevel) {
  CaptureStderr();
  InitLogging("ddpo-test", "error");
  LogWarning("unseen");
  LogError("seen");
  const std::string log = GetCapturedStderr();
  EXPECT_THAT(log, ::testing::Not(HasSubstr("unseen\n")));
  EXPECT_THAT(log, HasSubstr(" seen\n"));
}

TEST(LoggingTest, KeepsLoggingAfterALevelThatItDoesNotKnow) {
  CaptureStderr();
  InitLogging("ddpo-test", "loud");
  LogInfo("still here");
  const std::string log = GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("unknown log level `loud`"));
  EXPECT_THAT(log, HasSubstr("still here"));
}

}  // namespace
}  // namespace ddpo
