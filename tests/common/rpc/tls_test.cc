// Who gets in and who doesn't, over real connections, and how certificates are replaced.

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/rpc/server.h"
#include "common/rpc/status.h"
#include "common/rpc/tls_diagnosis.h"
#include "ddpo/cluster/v1/cluster.grpc.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/grpc_probe.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_certificates.h"

namespace ddpo {
namespace {

using cluster::v1::Coordinator;
using cluster::v1::FailTaskRequest;
using cluster::v1::FailTaskResponse;
using cluster::v1::SampleAck;
using cluster::v1::TrajectoryIngest;
using cluster::v1::TrajectorySample;
using config::v1::TlsConfig;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::TempDir;
using testing::TestAuthority;

constexpr char kToken[] = "0123456789abcdef-alice";

// As long as a test may take where the machine is busy.
absl::Time Deadline() { return absl::Now() + absl::Seconds(60); }

class OpenCoordinator : public Coordinator::CallbackService {
 public:
  grpc::ServerUnaryReactor* FailTask(grpc::CallbackServerContext* context, const FailTaskRequest*,
                                     FailTaskResponse*) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

// Acks each sample as it comes.
class EchoingIngest : public TrajectoryIngest::Service {
 public:
  grpc::Status Deliver(grpc::ServerContext*,
                       grpc::ServerReaderWriter<SampleAck, TrajectorySample>* stream) override {
    TrajectorySample sample;
    SampleAck ack;
    while (stream->Read(&sample)) stream->Write(ack);
    return grpc::Status::OK;
  }
};

absl::Status CallOn(const std::shared_ptr<grpc::Channel>& channel, bool wait_for_ready = false) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(Deadline()));
  context.set_wait_for_ready(wait_for_ready);
  FailTaskResponse response;
  return FromGrpcStatus(Coordinator::NewStub(channel)->FailTask(&context, {}, &response));
}

class TlsTest : public ::testing::Test {
 protected:
  TlsTest() : authority_(dir_.path(), "ca"), other_authority_(dir_.path(), "other-ca") {
    authority_.Issue("server");
    authority_.Issue("client");
    other_authority_.Issue("stranger");
    EXPECT_TRUE(WriteFileAtomically(dir_ / "tokens", absl::StrCat(kToken, " alice\n")).ok());
    EXPECT_TRUE(WriteFileAtomically(dir_ / "token", absl::StrCat(kToken, "\n")).ok());
    EXPECT_TRUE(WriteFileAtomically(dir_ / "wrong-token", "fedcba9876543210\n").ok());
  }

  // Files of the folder; an empty name stands for none.
  TlsConfig Tls(const std::string& certificate, const std::string& client_ca,
                const std::string& server_ca) {
    TlsConfig tls;
    if (!certificate.empty()) {
      tls.set_certificate(dir_ / (certificate + ".crt"));
      tls.set_private_key(dir_ / (certificate + ".key"));
    }
    if (!client_ca.empty()) tls.set_client_ca(dir_ / (client_ca + ".crt"));
    if (!server_ca.empty()) tls.set_server_ca(dir_ / (server_ca + ".crt"));
    return tls;
  }
  TlsConfig Server() { return Tls("server", "", ""); }
  TlsConfig MutualServer() { return Tls("server", "ca", ""); }
  TlsConfig Client(const std::string& certificate = "") { return Tls(certificate, "", "ca"); }

  void Start(const RpcServerOptions& options) {
    auto server = RpcServer::Start(options, {&coordinator_, &ingest_});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  std::shared_ptr<grpc::Channel> Connect(const TlsConfig& tls) {
    auto channel = CreateChannel(server_->address(), {.tls = tls});
    EXPECT_TRUE(channel.ok()) << channel.status();
    return *std::move(channel);
  }
  // One call over a new connection. Waits for the connection, as gRPC 1.51 takes one that is only
  // being opened for failed at times.
  absl::Status Call(const TlsConfig& tls, const std::string& token_file = "") {
    auto channel = CreateChannel(server_->address(), {.tls = tls, .token_file = token_file});
    if (!channel.ok()) return channel.status();
    return CallOn(*channel, /*wait_for_ready=*/true);
  }
  // What a person sees of a call that gets no connection.
  std::string WhyRefused(const TlsConfig& tls) {
    return std::string(ExplainConnection(CallOn(Connect(tls)), server_->address(), tls).message());
  }
  void ExpectRefused(const TlsConfig& tls, const std::string& why) {
    EXPECT_EQ(CallOn(Connect(tls)).code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(WhyRefused(tls), HasSubstr(why));
  }
  // Connects again and again until a call gets through, or until none does.
  void AwaitCalls(const TlsConfig& tls, bool succeed) {
    for (const absl::Time deadline = Deadline(); CallOn(Connect(tls)).ok() != succeed;) {
      ASSERT_LT(absl::Now(), deadline);
    }
  }

  TempDir dir_;
  TestAuthority authority_;
  TestAuthority other_authority_;
  OpenCoordinator coordinator_;
  EchoingIngest ingest_;
  std::unique_ptr<RpcServer> server_;
};

TEST_F(TlsTest, LetsAClientInThatTrustsTheServersAuthority) {
  Start({.tls = Server()});
  EXPECT_TRUE(Call(Client()).ok());
  EXPECT_EQ(testing::CheckHealth(Connect(Client()), ""), "SERVING");
}

TEST_F(TlsTest, AServerWithACertificateMayListenAnywhere) {
  Start({.listen = "0.0.0.0:0", .tls = Server()});
  server_ = nullptr;
}

TEST_F(TlsTest, AClientRefusesAServerOfAnotherAuthority) {
  Start({.tls = Server()});
  ExpectRefused(Tls("", "", "other-ca"),
                "the server's certificate (/CN=server, signed by /CN=ca, valid until ");
  ExpectRefused(Tls("", "", "other-ca"), "is refused: unable to get local issuer certificate");
}

TEST_F(TlsTest, AClientRefusesAServerOfAnotherName) {
  Start({.tls = Server()});
  TlsConfig tls = Client();
  tls.set_server_name_override("learner.example");
  ExpectRefused(tls, "is refused: hostname mismatch; expected one for learner.example");
  authority_.Issue("server", {.names = "DNS:learner.example"});
  AwaitCalls(tls, true);
}

TEST_F(TlsTest, AClientRefusesAServerWhoseCertificateHasExpired) {
  Start({.tls = Server()});
  authority_.Issue("server", {.to = absl::Now() - absl::Minutes(1)});
  const absl::Time deadline = Deadline();
  while (WhyRefused(Client()).find("is refused: certificate has expired") == std::string::npos) {
    ASSERT_LT(absl::Now(), deadline);
  }
}

TEST_F(TlsTest, APlainTextClientIsRefused) {
  Start({.tls = Server()});
  ExpectRefused({}, "the server there speaks TLS, this client plain text");
}

TEST_F(TlsTest, ATlsClientOfAPlainTextServerIsToldSo) {
  Start({});
  ExpectRefused(Client(), "the server there does not speak TLS");
}

TEST_F(TlsTest, MutualTlsLetsInWhoShowsAGoodCertificateOnly) {
  Start({.tls = MutualServer()});
  EXPECT_TRUE(Call(Client("client")).ok());
  ExpectRefused(Client(), "it may ask for a client's certificate (security.tls.certificate)");
  ExpectRefused(Client("stranger"), "the server refuses this client's certificate");
  ExpectRefused({}, "the server there speaks TLS, this client plain text");
}

TEST_F(TlsTest, AnExpiredCertificateIsRefusedByItsOwnProcess) {
  authority_.Issue("old", {.to = absl::Now() - absl::Minutes(1)});
  const absl::Status server = RpcServer::Start({.tls = Tls("old", "", "")}, {}).status();
  EXPECT_EQ(server.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(server.message()), HasSubstr("old.crt: the certificate expired on "));
  Start({.tls = MutualServer()});
  EXPECT_THAT(std::string(Call(Client("old")).message()),
              HasSubstr("old.crt: the certificate expired on "));
}

TEST_F(TlsTest, NamesTheFileThatIsAtFault) {
  EXPECT_TRUE(WriteFileAtomically(dir_ / "empty.crt", "no certificate").ok());
  EXPECT_TRUE(WriteFileAtomically(dir_ / "empty.key", "no key").ok());
  TlsConfig swapped = Server();
  swapped.set_private_key(dir_ / "client.key");
  TlsConfig half = Server();
  half.clear_private_key();
  TlsConfig no_key = Server();
  no_key.set_private_key(dir_ / "empty.key");
  const std::pair<TlsConfig, std::string> cases[] = {
      {Tls("absent", "", ""), "absent.crt"},
      {Tls("empty", "", ""), "empty.crt: expected certificates in PEM format, got none"},
      {no_key, "empty.key: expected a private key in PEM format"},
      {Tls("server", "absent", ""), "absent.crt"},
      {Tls("server", "empty", ""), "empty.crt: expected certificates"},
      {swapped, "client.key: the key does not belong to the certificate"},
      {half, "security.tls: certificate is given without private_key"},
      {Tls("", "ca", ""), "security.tls: client_ca is given without certificate"},
  };
  for (const auto& [tls, message] : cases) {
    EXPECT_THAT(std::string(RpcServer::Start({.tls = tls}, {}).status().message()),
                HasSubstr(message));
  }
}

TEST_F(TlsTest, ATokenIsNeededForAllButHealthChecksAndReflection) {
  for (const bool encrypted : {false, true}) {
    const TlsConfig client = encrypted ? Client() : TlsConfig();
    Start({.tls = encrypted ? Server() : TlsConfig(), .tokens_file = dir_ / "tokens"});
    EXPECT_TRUE(Call(client, dir_ / "token").ok()) << Call(client, dir_ / "token");
    EXPECT_EQ(Call(client).code(), absl::StatusCode::kUnauthenticated);
    EXPECT_THAT(std::string(Call(client).message()), HasSubstr("authorization: Bearer TOKEN"));
    EXPECT_EQ(Call(client, dir_ / "wrong-token"),
              absl::UnauthenticatedError("the bearer token is not known here"));
    EXPECT_EQ(testing::CheckHealth(Connect(client), ""), "SERVING");
    EXPECT_THAT(testing::ListServices(Connect(client)), HasSubstr("Coordinator"));
  }
}

TEST_F(TlsTest, TokensDoNotTravelInPlainTextBeyondLoopback) {
  const absl::Status server = RpcServer::Start({.listen = "0.0.0.0:0",
                                                .allow_plain_text_anywhere = true,
                                                .tokens_file = dir_ / "tokens"},
                                               {})
                                  .status();
  EXPECT_THAT(std::string(server.message()),
              HasSubstr("security.tokens_file: tokens don't travel in plain text"));
  const absl::Status client =
      CreateChannel("example.com:1", {.token_file = dir_ / "token"}).status();
  EXPECT_THAT(std::string(client.message()),
              HasSubstr("security.token_file: tokens don't travel in plain text"));
}

TEST_F(TlsTest, ARevokedTokenIsRefusedFromTheNextCallOn) {
  Start({.tokens_file = dir_ / "tokens"});
  const auto channel = *CreateChannel(server_->address(), {.token_file = dir_ / "token"});
  EXPECT_TRUE(CallOn(channel).ok());
  ASSERT_TRUE(WriteFileAtomically(dir_ / "tokens", "fedcba9876543210 bob\n").ok());
  EXPECT_EQ(CallOn(channel).code(), absl::StatusCode::kUnauthenticated);
  // The client, too, looks again.
  ASSERT_TRUE(WriteFileAtomically(dir_ / "token", "fedcba9876543210\n").ok());
  EXPECT_TRUE(CallOn(channel).ok());
}

TEST_F(TlsTest, HealthChecksInPlainTextHaveAnAddressOfTheirOwn) {
  Start({.tls = MutualServer(), .health_listen = "127.0.0.1:0"});
  const auto channel = *CreateChannel(server_->health_address());
  EXPECT_EQ(testing::CheckHealth(channel, "ddpo.cluster.v1.Coordinator"), "SERVING");
  server_->SetServing("ddpo.cluster.v1.Coordinator", false);
  EXPECT_EQ(testing::CheckHealth(channel, "ddpo.cluster.v1.Coordinator"), "NOT_SERVING");
  server_->SetNotServing();
  EXPECT_EQ(testing::CheckHealth(channel, ""), "NOT_SERVING");
  EXPECT_EQ(CallOn(channel).code(), absl::StatusCode::kUnimplemented);
}

// A folder of certificates that is replaced in one step.
class RotationTest : public TlsTest {
 protected:
  RotationTest() {
    for (const char* version : {"v1", "v2"}) {
      std::filesystem::create_directory(dir_ / version);
    }
    old_authority_ = std::make_unique<TestAuthority>(dir_ / "v1", "old-ca");
    new_authority_ = std::make_unique<TestAuthority>(dir_ / "v2", "new-ca");
    for (const char* name : {"server", "client"}) {
      old_authority_->Issue(name);
      new_authority_->Issue(name);
    }
    // Both are trusted while the one takes over from the other.
    const std::string both = *ReadFile(old_authority_->file()) + *ReadFile(new_authority_->file());
    EXPECT_TRUE(WriteFileAtomically(dir_ / "v1/both.crt", both).ok());
    EXPECT_TRUE(WriteFileAtomically(dir_ / "v2/both.crt", both).ok());
    // gRPC tells files that were replaced while it read them by their times, in seconds.
    for (const auto& file : std::filesystem::directory_iterator(dir_ / "v1")) {
      std::filesystem::last_write_time(
          file.path(), std::filesystem::last_write_time(file.path()) - std::chrono::hours(1));
    }
    Switch("v1");
  }

  void Switch(const std::string& version) {
    std::filesystem::create_directory_symlink(version, dir_ / "live.new");
    std::filesystem::rename(dir_ / "live.new", dir_ / "live");
  }

  std::unique_ptr<TestAuthority> old_authority_;
  std::unique_ptr<TestAuthority> new_authority_;
};

TEST_F(RotationTest, CertificatesReplacedUnderLoadLoseNoCallAndEndNoStream) {
  Start({.tls = Tls("live/server", "live/both", "")});
  const TlsConfig client = Tls("live/client", "", "live/both");
  const auto lasting = Connect(client);
  ASSERT_TRUE(CallOn(lasting, /*wait_for_ready=*/true).ok());
  grpc::ClientContext context;
  const auto stream = TrajectoryIngest::NewStub(lasting)->Deliver(&context);
  SampleAck ack;
  ASSERT_TRUE(stream->Write(TrajectorySample()) && stream->Read(&ack));

  std::atomic<bool> done = false;
  std::atomic<int> connections = 0;
  std::jthread calling([&] {
    while (!done) EXPECT_EQ(CallOn(lasting), absl::OkStatus());
  });
  std::jthread connecting([&] {
    for (; !done; ++connections) EXPECT_EQ(Call(client), absl::OkStatus());
  });
  Switch("v2");
  // Only the new authority is trusted here, so that this says when the server has the new ones.
  AwaitCalls(Tls("v2/client", "", "v2/new-ca"), true);
  const int before = connections;
  while (connections < before + 3) std::this_thread::yield();
  done = true;
  EXPECT_TRUE(stream->Write(TrajectorySample()) && stream->Read(&ack));
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(RotationTest, ADamagedCertificateHarmsNewConnectionsOnlyAndOnlyWhileItIsThere) {
  Start({.tls = Tls("live/server", "", "")});
  const TlsConfig client = Tls("", "", "live/both");
  const auto lasting = Connect(client);
  ASSERT_TRUE(CallOn(lasting, /*wait_for_ready=*/true).ok());
  ASSERT_TRUE(WriteFileAtomically(dir_ / "v1/server.crt", "damaged").ok());
  AwaitCalls(client, false);
  EXPECT_TRUE(CallOn(lasting).ok());
  Switch("v2");
  AwaitCalls(client, true);
}

}  // namespace
}  // namespace ddpo
