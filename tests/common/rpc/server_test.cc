#include "common/rpc/server.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <string>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/rpc/status.h"
#include "ddpo/cluster/v1/cluster.grpc.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ddpo {
namespace {

using cluster::v1::Coordinator;
using cluster::v1::FailTaskRequest;
using cluster::v1::FailTaskResponse;
using cluster::v1::GetStatusRequest;
using cluster::v1::GetStatusResponse;
using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr char kService[] = "ddpo.cluster.v1.Coordinator";

// Answers GetStatus once it is released, and FailTask at once.
class GatedCoordinator : public Coordinator::CallbackService {
 public:
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext*, const GetStatusRequest*,
                                      GetStatusResponse*) override {
    class Reactor : public grpc::ServerUnaryReactor {
      void OnDone() override { delete this; }
      void OnCancel() override { Finish(grpc::Status::CANCELLED); }
    };
    waiting_ = new Reactor();
    entered.Notify();
    return waiting_;
  }

  grpc::ServerUnaryReactor* FailTask(grpc::CallbackServerContext* context, const FailTaskRequest*,
                                     FailTaskResponse*) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  void Release() { waiting_->Finish(grpc::Status::OK); }

  absl::Notification entered;

 private:
  grpc::ServerUnaryReactor* waiting_ = nullptr;
};

class ServerTest : public ::testing::Test {
 protected:
  void StartServer(RpcServerOptions options = {}) {
    auto server = RpcServer::Start(options, {&coordinator_});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    auto channel = CreateChannel(server_->address());
    ASSERT_TRUE(channel.ok()) << channel.status();
    channel_ = *channel;
    ASSERT_TRUE(channel_->WaitForConnected(absl::ToChronoTime(absl::Now() + absl::Seconds(60))));
    stub_ = Coordinator::NewStub(channel_);
  }

  // As long as a test may take where the machine is busy.
  static void SetDeadline(grpc::ClientContext* context) {
    context->set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(60)));
  }

  absl::Status GetStatus() {
    grpc::ClientContext context;
    SetDeadline(&context);
    GetStatusResponse response;
    return FromGrpcStatus(stub_->GetStatus(&context, {}, &response));
  }

  absl::Status FailTask(const std::string& message) {
    grpc::ClientContext context;
    SetDeadline(&context);
    FailTaskRequest request;
    request.set_message(message);
    FailTaskResponse response;
    return FromGrpcStatus(stub_->FailTask(&context, request, &response));
  }

  // grpc.health.v1.Health.Check, byte by byte: the distribution has no header for it.
  absl::StatusOr<std::string> CheckHealth(const std::string& service) {
    grpc::ClientContext context;
    SetDeadline(&context);
    const grpc::Slice slice("\x0a" + std::string(1, static_cast<char>(service.size())) + service);
    const grpc::ByteBuffer request(&slice, 1);
    grpc::ByteBuffer response;
    grpc::Status status;
    absl::Notification done;
    grpc::GenericStub(channel_).UnaryCall(&context, "/grpc.health.v1.Health/Check", {}, &request,
                                          &response, [&](grpc::Status answer) {
                                            status = std::move(answer);
                                            done.Notify();
                                          });
    done.WaitForNotification();
    if (!status.ok()) return FromGrpcStatus(status);
    const std::string bytes = ToString(response);
    return bytes == "\x08\x01" ? "SERVING" : bytes == "\x08\x02" ? "NOT_SERVING" : bytes;
  }

  static std::string ToString(const grpc::ByteBuffer& buffer) {
    grpc::Slice slice;
    EXPECT_TRUE(buffer.DumpToSingleSlice(&slice).ok());
    return std::string(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }

  GatedCoordinator coordinator_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<Coordinator::Stub> stub_;
  std::unique_ptr<RpcServer> server_;
};

TEST_F(ServerTest, TakesAFreePortAndWritesItDown) {
  const std::string file = ::testing::TempDir() + "/server_test.address";
  StartServer({.address_file = file});
  EXPECT_EQ(*ReadFile(file), server_->address() + "\n");
  EXPECT_THAT(server_->address(), ::testing::MatchesRegex("127\\.0\\.0\\.1:[1-9][0-9]*"));
  EXPECT_TRUE(FailTask("").ok());
  ASSERT_TRUE(FileSystem::Real()->RemoveAll(file).ok());
}

TEST_F(ServerTest, RefusesPlainTextBeyondLoopbackUnlessAskedForIt) {
  const absl::Status refused = RpcServer::Start({.listen = "0.0.0.0:0"}, {}).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("0.0.0.0:0 is not loopback"));
  EXPECT_EQ(RpcServer::Start({.listen = "127.example.com:0"}, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(
      RpcServer::Start({.listen = "0.0.0.0:0", .allow_plain_text_anywhere = true}, {}).ok());
}

TEST_F(ServerTest, NamesAnAddressThatCannotBe) {
  const absl::Status status = RpcServer::Start({.listen = "localhost"}, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("`localhost`: expected HOST:PORT"));
}

TEST_F(ServerTest, RefusesAPortThatIsTaken) {
  StartServer();
  const absl::Status status = RpcServer::Start({.listen = server_->address()}, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(server_->address()));
}

TEST_F(ServerTest, AnswersHealthChecksByServiceName) {
  StartServer();
  EXPECT_EQ(*CheckHealth(""), "SERVING");
  EXPECT_EQ(*CheckHealth(kService), "SERVING");
  EXPECT_EQ(CheckHealth("no.such.Service").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ServerTest, StillServesAfterItSaysThatItDoesNot) {
  StartServer();
  server_->SetNotServing();
  EXPECT_EQ(*CheckHealth(""), "NOT_SERVING");
  EXPECT_EQ(*CheckHealth(kService), "NOT_SERVING");
  EXPECT_TRUE(FailTask("").ok());
}

TEST_F(ServerTest, ListsItsServicesByReflection) {
  StartServer();
  grpc::ClientContext context;
  SetDeadline(&context);
  grpc::CompletionQueue queue;
  const auto wait = [&] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  auto call = grpc::GenericStub(channel_).PrepareCall(
      &context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  call->StartCall(nullptr);
  ASSERT_TRUE(wait());
  const grpc::Slice list_services("\x3a\x01*");
  call->Write(grpc::ByteBuffer(&list_services, 1), nullptr);
  ASSERT_TRUE(wait());
  grpc::ByteBuffer response;
  call->Read(&response, nullptr);
  ASSERT_TRUE(wait());
  EXPECT_THAT(ToString(response), HasSubstr(kService));
  call->WritesDone(nullptr);
  ASSERT_TRUE(wait());
  grpc::Status status;
  call->Finish(&status, nullptr);
  ASSERT_TRUE(wait());
  EXPECT_TRUE(status.ok()) << status.error_message();
}

TEST_F(ServerTest, RefusesAMessageBeyondTheLimit) {
  StartServer({.max_message_bytes = 10000});
  EXPECT_TRUE(FailTask(std::string(9000, 'x')).ok());
  EXPECT_EQ(FailTask(std::string(11000, 'x')).code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(ServerTest, RefusesACompressedMessageThatWouldUnfoldBeyondTheLimit) {
  StartServer({.max_message_bytes = 10000});
  for (const size_t bytes : {size_t{100}, size_t{1} << 20}) {
    grpc::ClientContext context;
    SetDeadline(&context);
    context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
    FailTaskRequest request;
    request.set_message(std::string(bytes, 'x'));
    FailTaskResponse response;
    const grpc::Status status = stub_->FailTask(&context, request, &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr("gzip"));
  }
}

TEST_F(ServerTest, DrainLetsCallsUnderWayEnd) {
  StartServer();
  std::jthread caller([&] { EXPECT_TRUE(GetStatus().ok()); });
  coordinator_.entered.WaitForNotification();
  std::jthread drainer([&] { server_->Drain(absl::Minutes(5)); });
  // New calls are refused once the drain has begun.
  while (FailTask("").ok()) {
  }
  coordinator_.Release();
  drainer.join();
  caller.join();
  EXPECT_EQ(FailTask("").code(), absl::StatusCode::kUnavailable);
}

TEST_F(ServerTest, DrainCancelsCallsThatOutliveItsDeadline) {
  StartServer();
  std::jthread caller([&] {
    EXPECT_THAT(GetStatus().code(),
                AnyOf(absl::StatusCode::kCancelled, absl::StatusCode::kUnavailable));
  });
  coordinator_.entered.WaitForNotification();
  server_->Drain(absl::ZeroDuration());
}

TEST(ChannelTest, NamesAnAddressThatCannotBe) {
  for (const char* address : {"", "host", ":1", "host:", "host:port"}) {
    EXPECT_EQ(CreateChannel(address).status().code(), absl::StatusCode::kInvalidArgument)
        << address;
  }
}

TEST_F(ServerTest, ChannelComesBackAfterTheServerDid) {
  StartServer();
  const std::string address = server_->address();
  EXPECT_TRUE(FailTask("").ok());
  server_.reset();
  EXPECT_EQ(FailTask("").code(), absl::StatusCode::kUnavailable);
  auto server = RpcServer::Start({.listen = address}, {&coordinator_});
  ASSERT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
  grpc::ClientContext context;
  SetDeadline(&context);
  context.set_wait_for_ready(true);
  FailTaskResponse response;
  EXPECT_TRUE(stub_->FailTask(&context, {}, &response).ok());
}

}  // namespace
}  // namespace ddpo
