// deploy/tls/make-local-ca, and that our servers and clients take what it makes.

#include <grpcpp/grpcpp.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/base/files.h"
#include "common/base/subprocess.h"
#include "common/rpc/server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/grpc_probe.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_dir.h"

namespace ddpo {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class LocalCaTest : public ::testing::Test {
 protected:
  // What the script says; the exit code is that of the last run.
  std::string Make(std::vector<std::string> arguments = {}) {
    std::vector<std::string> argv = {testing::SourcePath("deploy/tls/make-local-ca"), dir_ / "tls"};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    std::filesystem::remove(dir_ / "log");
    auto process = Subprocess::Start({.argv = argv, .log_file = dir_ / "log"});
    EXPECT_TRUE(process.ok()) << process.status();
    exit_code_ = (*process)->Wait()->code;
    return *ReadFile(dir_ / "log");
  }
  std::string File(const std::string& name) { return dir_ / ("tls/" + name); }
  unsigned Mode(const std::string& name) {
    return static_cast<unsigned>(std::filesystem::status(File(name)).permissions());
  }
  config::v1::TlsConfig Tls(const std::string& name) {
    config::v1::TlsConfig tls;
    tls.set_certificate(File(name + "/tls.crt"));
    tls.set_private_key(File(name + "/tls.key"));
    tls.set_server_ca(File(name + "/ca.crt"));
    return tls;
  }

  testing::TempDir dir_;
  int exit_code_ = -1;
};

TEST_F(LocalCaTest, MakesWhatServersAndClientsNeed) {
  Make();
  ASSERT_EQ(exit_code_, 0);
  config::v1::TlsConfig serving = Tls("server");
  serving.set_client_ca(File("ca.crt"));
  auto server = RpcServer::Start({.tls = serving}, {});
  ASSERT_TRUE(server.ok()) << server.status();
  // A server may call others.
  for (const char* name : {"client", "server"}) {
    EXPECT_EQ(testing::CheckHealth(*CreateChannel((*server)->address(), {.tls = Tls(name)}), ""),
              "SERVING");
  }
  // A client's certificate is no server's.
  auto impostor = RpcServer::Start({.tls = Tls("client")}, {});
  ASSERT_TRUE(impostor.ok()) << impostor.status();
  const auto channel = *CreateChannel((*impostor)->address(), {.tls = Tls("server")});
  EXPECT_FALSE(
      channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::milliseconds(300)));
}

TEST_F(LocalCaTest, NobodyElseReadsThePrivateKeys) {
  Make();
  EXPECT_EQ(Mode("ca.key"), 0600);
  EXPECT_EQ(Mode("server/tls.key"), 0600);
  EXPECT_EQ(Mode("server/tls.crt"), 0644);
  Make({"--key-mode", "640"});
  EXPECT_EQ(Mode("server/tls.key"), 0640);
  EXPECT_EQ(Mode("ca.key"), 0600);
}

TEST_F(LocalCaTest, RunAgainItKeepsWhatIsGood) {
  Make({"--server", "a", "--client", "b"});
  const std::string authority = *ReadFile(File("ca.crt"));
  const std::string server = *ReadFile(File("a/tls.crt"));
  EXPECT_EQ(Make({"--server", "a", "--client", "b"}), "");
  EXPECT_EQ(*ReadFile(File("a/tls.crt")), server);

  // Other names, or too few days left.
  EXPECT_THAT(Make({"--server", "a=learner.example,10.0.0.1"}), HasSubstr("made"));
  EXPECT_NE(*ReadFile(File("a/tls.crt")), server);
  const std::string client = *ReadFile(File("b/tls.crt"));
  EXPECT_THAT(Make({"--client", "b", "--renew-before", "91"}), HasSubstr("made"));
  EXPECT_NE(*ReadFile(File("b/tls.crt")), client);
  EXPECT_EQ(*ReadFile(File("ca.crt")), authority);
  // Nothing of the replaced ones stays: two certificates, their links and the authority's files.
  int entries = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(dir_ / "tls")) {
    ++entries;
  }
  EXPECT_EQ(entries, 6);
}

TEST_F(LocalCaTest, SaysWhatItExpected) {
  EXPECT_THAT(Make({"--server", "a=not a name"}), HasSubstr("'not a name' is neither"));
  EXPECT_EQ(exit_code_, 2);
  EXPECT_THAT(Make({"--server", "../a"}), HasSubstr("expected a name of letters"));
  EXPECT_THAT(Make({"--sever", "a"}), HasSubstr("unknown option --sever"));
  std::filesystem::remove(File("ca.key"));
  EXPECT_THAT(Make(), AllOf(HasSubstr("only one of ca.crt and ca.key")));
}

}  // namespace
}  // namespace ddpo
