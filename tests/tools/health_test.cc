#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "common/rpc/server.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_certificates.h"
#include "tools/health/health_check.h"

namespace ddpo {
namespace {

using ::testing::HasSubstr;

class HealthCheckTest : public ::testing::Test {
 protected:
  HealthCheckTest() : server_(*RpcServer::Start({}, {})) {
    server_->SetServing("ddpo.part", true);
    server_->SetServing("ddpo.hanging", false);
  }

  absl::Status Check(const std::string& service) {
    // Long: it ends at once unless the machine is busy.
    return CheckHealth(server_->address(), service, absl::Seconds(30));
  }

  std::unique_ptr<RpcServer> server_;
};

TEST_F(HealthCheckTest, IsOkForAServerAndForANameThatServe) {
  EXPECT_TRUE(Check("").ok()) << Check("");
  EXPECT_TRUE(Check("ddpo.part").ok()) << Check("ddpo.part");
}

TEST_F(HealthCheckTest, TellsWhatDoesNotServe) {
  const absl::Status hanging = Check("ddpo.hanging");
  EXPECT_EQ(hanging.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(hanging.message()), HasSubstr("ddpo.hanging"));
  server_->SetNotServing();
  EXPECT_EQ(Check("").code(), absl::StatusCode::kUnavailable);
}

TEST_F(HealthCheckTest, DoesNotTakeAnUnknownNameForAHealthyOne) {
  EXPECT_EQ(Check("ddpo.unheard_of").code(), absl::StatusCode::kNotFound);
}

TEST_F(HealthCheckTest, EndsWithTheDeadlineWhereNobodyListens) {
  const std::string address = server_->address();
  server_.reset();
  EXPECT_EQ(CheckHealth(address, "", absl::Milliseconds(200)).code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(CheckHealth("nowhere", "", absl::Seconds(1)).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(HealthCheckTest, SpeaksTlsWhereItIsToldTheAuthorities) {
  const testing::TempDir dir;
  testing::TestAuthority authority(dir.path(), "ca");
  authority.Issue("server");
  config::v1::TlsConfig tls;
  tls.set_certificate(dir / "server.crt");
  tls.set_private_key(dir / "server.key");
  server_ = *RpcServer::Start({.tls = tls}, {});
  config::v1::TlsConfig client;
  client.set_server_ca(authority.file());
  EXPECT_TRUE(CheckHealth(server_->address(), "", absl::Seconds(30), client).ok());
}

}  // namespace
}  // namespace ddpo
