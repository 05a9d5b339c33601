#include "reward_server/judges/chat_endpoint_judge.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ddpo {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

// Speaks just enough HTTP on a loopback port: answers request i with responses[i], the last one for
// ever after, and keeps what was asked. Answers none before there are `together`.
class FakeEndpoint {
 public:
  explicit FakeEndpoint(std::vector<std::string> responses, size_t together = 1)
      : responses_(std::move(responses)), together_(together) {
    listener_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(listen(listener_, 8), 0);
    EXPECT_EQ(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length), 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Serve(); });
  }
  ~FakeEndpoint() {
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
  }

  std::string url() const { return absl::StrCat("http://127.0.0.1:", port_, "/v1"); }
  // Read after the calls have returned.
  const std::vector<std::string>& requests() const { return requests_; }

 private:
  void Serve() {
    for (int connection; (connection = accept(listener_, nullptr, nullptr)) >= 0;) {
      std::string request;
      char buffer[4096];
      while (!Complete(request)) {
        const ssize_t count = read(connection, buffer, sizeof(buffer));
        if (count <= 0) break;
        request.append(buffer, static_cast<size_t>(count));
      }
      requests_.push_back(request);
      waiting_.push_back(connection);
      if (waiting_.size() < together_) continue;
      const size_t first = requests_.size() - waiting_.size();
      for (size_t i = 0; i < waiting_.size(); ++i) Respond(waiting_[i], first + i);
      waiting_.clear();
    }
    for (const int connection : waiting_) close(connection);
  }

  void Respond(int connection, size_t request) const {
    const std::string& response = responses_[std::min(request + 1, responses_.size()) - 1];
    if (!response.empty()) {
      EXPECT_EQ(write(connection, response.data(), response.size()),
                static_cast<ssize_t>(response.size()));
    }
    close(connection);
  }

  static bool Complete(const std::string& request) {
    const size_t end = request.find("\r\n\r\n");
    const size_t length = request.find("Content-Length: ");
    if (end == std::string::npos || length == std::string::npos) return false;
    return request.size() >= end + 4 + std::strtoul(request.c_str() + length + 16, nullptr, 10);
  }

  const std::vector<std::string> responses_;
  const size_t together_;
  std::vector<std::string> requests_;
  std::vector<int> waiting_;  // connections
  int listener_ = -1;
  uint16_t port_ = 0;
  std::thread thread_;
};

std::string Http(const std::string& status, const std::string& body) {
  return absl::StrCat("HTTP/1.1 ", status, "\r\nContent-Length: ", body.size(),
                      "\r\nConnection: close\r\n\r\n", body);
}

std::string Reply(const std::string& text) {
  const nlohmann::json message = {{"content", text}};
  return Http("200 OK", nlohmann::json{{"choices", {{{"message", message}}}}}.dump());
}

ChatEndpointOptions OptionsFor(const FakeEndpoint& endpoint) {
  ChatEndpointOptions options;
  options.base_url = endpoint.url();
  options.model = "llava";
  options.retry_delay = absl::Milliseconds(1);
  options.timeout = absl::Seconds(20);
  return options;
}

absl::StatusOr<std::string> Ask(const ChatEndpointOptions& options) {
  auto judge = CreateChatEndpointJudge(options);
  if (!judge.ok()) return judge.status();
  const Image image{1, 1, {255, 0, 0}};
  return (*judge)->Answer({ImageQuestion{&image, "What is this?", 7}})[0];
}

TEST(ChatEndpointJudgeTest, SendsTheImageAndReturnsTheReply) {
  FakeEndpoint endpoint({Reply("a red dot")});
  const auto reply = Ask(OptionsFor(endpoint));
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(*reply, "a red dot");
  ASSERT_THAT(endpoint.requests(), SizeIs(1));
  const std::string& request = endpoint.requests()[0];
  EXPECT_TRUE(absl::StartsWith(request, "POST /v1/chat/completions "));
  EXPECT_THAT(request, Not(HasSubstr("Authorization")));
  const auto body = nlohmann::json::parse(request.substr(request.find("\r\n\r\n") + 4));
  EXPECT_EQ(body["model"], "llava");
  EXPECT_EQ(body["max_tokens"], 7);
  EXPECT_EQ(body["temperature"], 0);
  EXPECT_EQ(body["messages"][0]["content"][0]["text"], "What is this?");
  EXPECT_TRUE(
      absl::StartsWith(body["messages"][0]["content"][1]["image_url"]["url"].get<std::string>(),
                       "data:image/png;base64,iVBOR"));
}

TEST(ChatEndpointJudgeTest, SendsTheKeyOfTheFile) {
  const std::string path = ::testing::TempDir() + "/key";
  std::ofstream(path) << "secret\nnot this\n";
  FakeEndpoint endpoint({Reply("x")});
  ChatEndpointOptions options = OptionsFor(endpoint);
  options.api_key_file = path;
  ASSERT_TRUE(Ask(options).ok());
  EXPECT_THAT(endpoint.requests()[0], HasSubstr("Authorization: Bearer secret\r\n"));
}

TEST(ChatEndpointJudgeTest, AsksQuestionsSideBySide) {
  // Answers nobody before all three have asked, which one after the other never would.
  FakeEndpoint endpoint({Reply("a red dot")}, 3);
  const auto judge = CreateChatEndpointJudge(OptionsFor(endpoint)).value();
  const Image image{1, 1, {255, 0, 0}};
  const std::vector<ImageQuestion> questions = {
      {&image, "one?", 1}, {&image, "two?", 2}, {&image, "three?", 3}};
  for (const auto& reply : judge->Answer(questions)) {
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(*reply, "a red dot");
  }
  EXPECT_THAT(endpoint.requests(),
              UnorderedElementsAre(HasSubstr("one?"), HasSubstr("two?"), HasSubstr("three?")));
}

TEST(ChatEndpointJudgeTest, AsksNoMoreAtOnceThanAllowed) {
  FakeEndpoint endpoint({Reply("a"), Reply("b"), Reply("c")});
  ChatEndpointOptions options = OptionsFor(endpoint);
  options.max_parallel_requests = 1;
  const auto judge = CreateChatEndpointJudge(options).value();
  EXPECT_EQ(judge->max_batch_size(), 1);
  const Image image{1, 1, {255, 0, 0}};
  const std::vector<ImageQuestion> questions = {
      {&image, "one?", 1}, {&image, "two?", 2}, {&image, "three?", 3}};
  const auto replies = judge->Answer(questions);
  EXPECT_EQ(replies[0].value(), "a");
  EXPECT_EQ(replies[1].value(), "b");
  EXPECT_EQ(replies[2].value(), "c");
}

TEST(ChatEndpointJudgeTest, TriesAgainAfterABusyServer) {
  FakeEndpoint endpoint({Http("503 Service Unavailable", "loading"),
                         Http("429 Too Many Requests", "slow down"), Reply("here")});
  const auto reply = Ask(OptionsFor(endpoint));
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(*reply, "here");
  EXPECT_THAT(endpoint.requests(), SizeIs(3));
}

TEST(ChatEndpointJudgeTest, GivesUpAfterTheRetries) {
  FakeEndpoint endpoint({Http("500 Internal Server Error", "boom")});
  ChatEndpointOptions options = OptionsFor(endpoint);
  options.max_retries = 2;
  const auto reply = Ask(options);
  EXPECT_EQ(reply.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(reply.status().message()), HasSubstr("HTTP 500: boom"));
  EXPECT_THAT(endpoint.requests(), SizeIs(3));
}

TEST(ChatEndpointJudgeTest, DoesNotRepeatWhatCannotSucceed) {
  FakeEndpoint endpoint({Http("401 Unauthorized", "who are you")});
  EXPECT_EQ(Ask(OptionsFor(endpoint)).status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_THAT(endpoint.requests(), SizeIs(1));
}

TEST(ChatEndpointJudgeTest, AnAnswerOfAnotherShapeIsAnError) {
  for (const char* body : {"{}", "not json", R"({"choices": []})", R"({"choices": [{}]})"}) {
    FakeEndpoint endpoint({Http("200 OK", body)});
    const auto reply = Ask(OptionsFor(endpoint));
    EXPECT_EQ(reply.status().code(), absl::StatusCode::kInternal) << body;
    EXPECT_THAT(std::string(reply.status().message()), HasSubstr("no choices[0].message.content"));
  }
}

TEST(ChatEndpointJudgeTest, BoundsTheSizeOfAnAnswer) {
  FakeEndpoint endpoint({Reply(std::string(5000, 'x'))});
  ChatEndpointOptions options = OptionsFor(endpoint);
  options.max_response_bytes = 1000;
  EXPECT_THAT(std::string(Ask(options).status().message()), HasSubstr("more than 1000 bytes"));
}

TEST(ChatEndpointJudgeTest, RefusesWhatIsNoEndpoint) {
  ChatEndpointOptions options;
  options.base_url = "file:///etc/passwd";
  options.model = "llava";
  EXPECT_EQ(CreateChatEndpointJudge(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.base_url = "http://127.0.0.1:1/v1";
  options.model = "";
  EXPECT_EQ(CreateChatEndpointJudge(options).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace ddpo
