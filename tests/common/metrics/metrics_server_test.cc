#include "common/metrics/metrics_server.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "common/base/address.h"
#include "common/metrics/actor_metrics.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ddpo {
namespace {

using ::testing::HasSubstr;

// What an HTTP GET of the path answers, headers included.
std::string Get(const std::string& address, const std::string& path) {
  const HostPort target = *ParseHostPort(address);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in peer{};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(static_cast<uint16_t>(target.port));
  EXPECT_EQ(inet_pton(AF_INET, target.host.c_str(), &peer.sin_addr), 1);
  EXPECT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&peer), sizeof(peer)), 0);
  const std::string request =
      "GET " + path + " HTTP/1.1\r\nHost: " + address + "\r\nConnection: close\r\n\r\n";
  EXPECT_EQ(send(fd, request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
  std::string answer;
  char buffer[4096];
  for (ssize_t count; (count = recv(fd, buffer, sizeof(buffer), 0)) > 0;) {
    answer.append(buffer, static_cast<size_t>(count));
  }
  close(fd);
  return answer;
}

TEST(MetricsServerTest, ServesWhatTheProcessCountsOnAFreePort) {
  auto registry = std::make_shared<prometheus::Registry>();
  ActorMetrics metrics(*registry);
  auto server = MetricsServer::Start({.process = "ddpo-actor"}, registry);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_THAT((*server)->address(), ::testing::MatchesRegex("127\\.0\\.0\\.1:[1-9][0-9]*"));
  metrics.samples.Increment(16);
  const std::string answer = Get((*server)->address(), "/metrics");
  EXPECT_THAT(answer, HasSubstr("200 OK"));
  EXPECT_THAT(answer, HasSubstr("ddpo_actor_samples_total 16\n"));
  EXPECT_THAT(answer, HasSubstr("ddpo_process_start_time_seconds{process=\"ddpo-actor\"} 1"));
}

TEST(MetricsServerTest, TwoOfThemDoNotMeet) {
  auto one = MetricsServer::Start({.process = "a"}, std::make_shared<prometheus::Registry>());
  auto two = MetricsServer::Start({.listen = "localhost:0", .process = "b"},
                                  std::make_shared<prometheus::Registry>());
  ASSERT_TRUE(one.ok() && two.ok()) << one.status() << two.status();
  EXPECT_NE((*one)->address(), (*two)->address());
  EXPECT_THAT(Get((*two)->address(), "/metrics"), HasSubstr("process=\"b\""));
}

TEST(MetricsServerTest, RefusesPlainTextBeyondLoopbackUnlessAskedForIt) {
  const auto start = [](const MetricsServerOptions& options) {
    return MetricsServer::Start(options, std::make_shared<prometheus::Registry>()).status();
  };
  const absl::Status refused = start({.listen = "0.0.0.0:0"});
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("0.0.0.0:0 is not loopback"));
  EXPECT_TRUE(start({.listen = "0.0.0.0:0", .allow_plain_text_anywhere = true}).ok());
}

TEST(MetricsServerTest, NamesAnAddressThatItCannotListenOn) {
  auto registry = std::make_shared<prometheus::Registry>();
  auto first = MetricsServer::Start({.process = "a"}, registry);
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::Status taken =
      MetricsServer::Start({.listen = (*first)->address(), .process = "b"}, registry).status();
  EXPECT_EQ(taken.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(taken.message()), HasSubstr((*first)->address()));
  EXPECT_EQ(MetricsServer::Start({.listen = "9464"}, registry).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace ddpo
