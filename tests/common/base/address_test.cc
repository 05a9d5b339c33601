#include "common/base/address.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ddpo {
namespace {

using ::testing::HasSubstr;

TEST(AddressTest, ReadsNamesAndBothKindsOfNumbers) {
  for (const char* text : {"learner-0.learner:50051", "10.0.0.1:0", "[::1]:65535"}) {
    const auto address = ParseHostPort(text);
    ASSERT_TRUE(address.ok()) << address.status();
    EXPECT_EQ(address->ToString(), text);
  }
  EXPECT_EQ(ParseHostPort("[::1]:80")->host, "::1");
  EXPECT_EQ(ParseHostPort("[::1]:80")->port, 80);
}

TEST(AddressTest, SaysWhatIsWrongWithTheRest) {
  const auto error = [](const char* text) {
    return std::string(ParseHostPort(text).status().message());
  };
  EXPECT_THAT(error("localhost"), HasSubstr("address `localhost`: expected HOST:PORT"));
  EXPECT_THAT(error(":80"), HasSubstr("expected HOST:PORT"));
  EXPECT_THAT(error("::1:80"), HasSubstr("in brackets"));
  EXPECT_THAT(error("[::1:80"), HasSubstr("expected [IPV6]:PORT"));
  for (const char* text : {"h:", "h:65536", "h:http", "h:-1", "h: 1", "h:99999999999"}) {
    EXPECT_THAT(error(text), HasSubstr("a port from 0 to 65535")) << text;
  }
}

TEST(AddressTest, TakesOnlyThisMachinesAddressesForLoopback) {
  for (const char* host : {"localhost", "127.0.0.1", "127.255.1.2", "::1"}) {
    EXPECT_TRUE(IsLoopbackHost(host)) << host;
  }
  // The first would be loopback to someone who looks only at how the text starts.
  for (const char* host : {"127.example.com", "0.0.0.0", "::", "10.0.0.1", "128.0.0.1", ""}) {
    EXPECT_FALSE(IsLoopbackHost(host)) << host;
  }
}

}  // namespace
}  // namespace ddpo
