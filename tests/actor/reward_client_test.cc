#include "actor/reward_client.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/fake_clock.h"

namespace ddpo {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

using reward::v1::ScoreRequest;
using reward::v1::ScoreResponse;

// Answers each call with the next of the scripted handlers, and with Echo when none is left.
class ScriptedService : public reward::v1::RewardService::Service {
 public:
  using Handler =
      std::function<grpc::Status(grpc::ServerContext*, const ScoreRequest&, ScoreResponse*)>;

  void Then(Handler handler) {
    absl::MutexLock lock(&mu_);
    script_.push_back(std::move(handler));
  }
  void ThenFail(grpc::StatusCode code) {
    Then([code](grpc::ServerContext*, const ScoreRequest&, ScoreResponse*) {
      return grpc::Status(code, "scripted");
    });
  }
  // Echo, changed.
  void ThenChange(std::function<void(ScoreResponse*)> change) {
    Then([change](grpc::ServerContext*, const ScoreRequest& request, ScoreResponse* response) {
      Echo(request, response);
      change(response);
      return grpc::Status::OK;
    });
  }

  std::vector<ScoreRequest> requests() const {
    absl::MutexLock lock(&mu_);
    return requests_;
  }

  grpc::Status Score(grpc::ServerContext* context, const ScoreRequest* request,
                     ScoreResponse* response) override {
    Handler handler;
    {
      absl::MutexLock lock(&mu_);
      requests_.push_back(*request);
      if (!script_.empty()) {
        handler = std::move(script_.front());
        script_.erase(script_.begin());
      }
    }
    if (handler) return handler(context, *request, response);
    Echo(*request, response);
    return grpc::Status::OK;
  }

  // The score is the image's first byte; the text is the prompt.
  static void Echo(const ScoreRequest& request, ScoreResponse* response) {
    response->set_scorer(request.scorer());
    response->set_scorer_digest("d1");
    for (const reward::v1::ScoreItem& item : request.items()) {
      reward::v1::ScoreResult* result = response->add_results();
      result->set_item_id(item.item_id());
      result->mutable_score()->set_value(static_cast<uint8_t>(item.image().raw().rgb()[0]));
      (*result->mutable_score()->mutable_details())["bytes"] = 7;
      result->mutable_score()->set_text(item.prompt());
    }
  }

 private:
  mutable absl::Mutex mu_;
  std::vector<Handler> script_ ABSL_GUARDED_BY(mu_);
  std::vector<ScoreRequest> requests_ ABSL_GUARDED_BY(mu_);
};

// A scripted service that listens; port 0 takes a free one.
struct ScriptedServer {
  explicit ScriptedServer(int wanted_port = 0) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(absl::StrCat("127.0.0.1:", wanted_port),
                             grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service);
    server = builder.BuildAndStart();
  }
  ~ScriptedServer() { server->Shutdown(std::chrono::system_clock::now()); }
  std::string address() const { return absl::StrCat("127.0.0.1:", port); }

  ScriptedService service;
  int port = 0;
  std::unique_ptr<grpc::Server> server;
};

class RewardClientTest : public ::testing::Test {
 protected:
  RewardClientTest() {
    options_.scorer = "jpeg_compressibility";
    options_.clock = &clock_;
  }

  std::unique_ptr<RewardClient> Connect(const std::vector<std::string>& addresses) {
    auto client = RewardClient::Create(addresses, options_);
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }

  static std::vector<Image> Images(int count) {
    std::vector<Image> images;
    for (int i = 0; i < count; ++i) {
      images.push_back(Image{2, 3, std::vector<uint8_t>(18, static_cast<uint8_t>(i + 1))});
    }
    return images;
  }
  static std::vector<std::string> Prompts(int count) {
    std::vector<std::string> prompts;
    for (int i = 0; i < count; ++i) prompts.push_back(absl::StrCat("prompt ", i));
    return prompts;
  }

  FakeClock clock_;
  RewardClientOptions options_;
};

TEST_F(RewardClientTest, SendsRawPixelsAndReturnsResultsInOrder) {
  ScriptedServer server;
  auto results = Connect({server.address()})->Score(Images(5), Prompts(5));
  ASSERT_TRUE(results.ok()) << results.status();
  ASSERT_THAT(*results, SizeIs(5));
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ((*results)[i].value, i + 1);
    EXPECT_EQ((*results)[i].text, absl::StrCat("prompt ", i));
    EXPECT_EQ((*results)[i].details.at("bytes"), 7);
    EXPECT_EQ((*results)[i].scorer_digest, "d1");
  }
  const std::vector<ScoreRequest> requests = server.service.requests();
  ASSERT_THAT(requests, SizeIs(1));
  EXPECT_EQ(requests[0].scorer(), "jpeg_compressibility");
  EXPECT_EQ(requests[0].items(4).image().raw().width(), 2u);
  EXPECT_EQ(requests[0].items(4).image().raw().height(), 3u);
  EXPECT_EQ(requests[0].items(4).image().raw().rgb(), std::string(18, '\x05'));
}

TEST_F(RewardClientTest, SplitsWhatIsTooLargeForOneMessage) {
  options_.max_call_bytes = 40;
  ScriptedServer server;
  auto results = Connect({server.address()})->Score(Images(5), Prompts(5));
  ASSERT_TRUE(results.ok()) << results.status();
  std::vector<int> sizes;
  for (const ScoreRequest& request : server.service.requests()) {
    sizes.push_back(request.items_size());
  }
  EXPECT_THAT(sizes, ElementsAre(2, 2, 1));
  EXPECT_EQ((*results)[4].value, 5);
}

TEST_F(RewardClientTest, NoImagesNeedNoServer) {
  auto results = Connect({"127.0.0.1:1"})->Score({}, {});
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_THAT(*results, SizeIs(0));
}

TEST_F(RewardClientTest, TriesAgainWhileAServerIsUnavailable) {
  ScriptedServer server;
  server.service.ThenFail(grpc::StatusCode::UNAVAILABLE);
  server.service.ThenFail(grpc::StatusCode::UNAVAILABLE);
  auto results = Connect({server.address()})->Score(Images(2), Prompts(2));
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_THAT(server.service.requests(), SizeIs(3));
}

TEST_F(RewardClientTest, WaitsForAServerThatStartsLater) {
  options_.clock = Clock::Real();
  options_.initial_backoff = options_.max_backoff = absl::Milliseconds(10);
  auto port_holder = std::make_unique<ScriptedServer>();
  const int port = port_holder->port;
  port_holder.reset();
  std::unique_ptr<ScriptedServer> server;
  int asked = 0;
  auto results = Connect({absl::StrCat("127.0.0.1:", port)})->Score(Images(2), Prompts(2), [&] {
    if (++asked == 5) server = std::make_unique<ScriptedServer>(port);
    return false;
  });
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_EQ((*results)[1].value, 2);
}

TEST_F(RewardClientTest, GoesOnToAnotherServer) {
  ScriptedServer server;
  auto client = Connect({"127.0.0.1:1", server.address()});
  ASSERT_TRUE(client->Score(Images(1), Prompts(1)).ok());
  ASSERT_TRUE(client->Score(Images(1), Prompts(1)).ok());
  EXPECT_THAT(server.service.requests(), SizeIs(2));
}

TEST_F(RewardClientTest, WaitsAsLongAsABusyServerAsksFor) {
  options_.initial_backoff = absl::Milliseconds(1);
  ScriptedServer server;
  server.service.Then([](grpc::ServerContext* context, const ScoreRequest&, ScoreResponse*) {
    context->AddTrailingMetadata("retry-after-ms", "7000");
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full");
  });
  const absl::Time start = clock_.Now();
  auto results = Connect({server.address()})->Score(Images(1), Prompts(1));
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_GE(clock_.Now() - start, absl::Seconds(7));
}

TEST_F(RewardClientTest, GivesUpInTheEndWithTheLastErrorAndTheAddress) {
  options_.give_up_after = absl::Seconds(20);
  auto results = Connect({"127.0.0.1:1"})->Score(Images(1), Prompts(1));
  EXPECT_EQ(results.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(results.status().message(),
              AllOf(HasSubstr("127.0.0.1:1"), HasSubstr("giving up after 20s")));
}

TEST_F(RewardClientTest, AnErrorThatCannotPassIsReturnedAtOnce) {
  ScriptedServer server;
  server.service.ThenFail(grpc::StatusCode::NOT_FOUND);
  auto results = Connect({server.address()})->Score(Images(1), Prompts(1));
  EXPECT_EQ(results.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(results.status().message(),
              AllOf(HasSubstr(server.address()), HasSubstr("scripted")));
  EXPECT_THAT(server.service.requests(), SizeIs(1));
}

void SetError(ScoreResponse* response, int index, grpc::StatusCode code) {
  reward::v1::ItemError* error = response->mutable_results(index)->mutable_error();
  error->set_code(code);
  error->set_reason("JUDGE_AWAY");
  error->set_message("no answer");
}

TEST_F(RewardClientTest, TriesOnlyTheFailedItemsAgain) {
  ScriptedServer server;
  server.service.ThenChange(
      [](ScoreResponse* response) { SetError(response, 1, grpc::StatusCode::UNAVAILABLE); });
  auto results = Connect({server.address()})->Score(Images(3), Prompts(3));
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_EQ((*results)[1].value, 2);
  const std::vector<ScoreRequest> requests = server.service.requests();
  ASSERT_THAT(requests, SizeIs(2));
  ASSERT_EQ(requests[1].items_size(), 1);
  EXPECT_EQ(requests[1].items(0).prompt(), "prompt 1");
}

TEST_F(RewardClientTest, AnItemThatKeepsFailingFailsTheCall) {
  options_.max_item_attempts = 2;
  ScriptedServer server;
  for (int i = 0; i < 2; ++i) {
    server.service.ThenChange([i](ScoreResponse* response) {
      SetError(response, i == 0 ? 1 : 0, grpc::StatusCode::UNAVAILABLE);
    });
  }
  auto results = Connect({server.address()})->Score(Images(3), Prompts(3));
  EXPECT_EQ(results.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(results.status().message(),
              AllOf(HasSubstr("image 1"), HasSubstr("JUDGE_AWAY"), HasSubstr("2 attempts")));
}

TEST_F(RewardClientTest, AnItemThatCannotBeScoredFailsTheCallAtOnce) {
  ScriptedServer server;
  server.service.ThenChange(
      [](ScoreResponse* response) { SetError(response, 2, grpc::StatusCode::INVALID_ARGUMENT); });
  auto results = Connect({server.address()})->Score(Images(3), Prompts(3));
  EXPECT_EQ(results.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(results.status().message(), HasSubstr("image 2"));
  EXPECT_THAT(server.service.requests(), SizeIs(1));
}

TEST_F(RewardClientTest, AnAnswerThatDoesNotFitTheRequestIsAnError) {
  const std::vector<std::pair<std::function<void(ScoreResponse*)>, std::string>> cases = {
      {[](ScoreResponse* r) { r->mutable_results()->RemoveLast(); }, "1 results for 2 items"},
      {[](ScoreResponse* r) { r->mutable_results(1)->set_item_id("x"); }, "item 'x'"},
      {[](ScoreResponse* r) { r->mutable_results(1)->clear_outcome(); }, "image 1 has neither"},
      {[](ScoreResponse* r) {
         r->mutable_results(0)->mutable_score()->set_value(
             std::numeric_limits<double>::quiet_NaN());
       },
       "image 0 has neither"},
  };
  for (const auto& [change, message] : cases) {
    ScriptedServer server;
    server.service.ThenChange(change);
    auto results = Connect({server.address()})->Score(Images(2), Prompts(2));
    EXPECT_EQ(results.status().code(), absl::StatusCode::kInternal);
    EXPECT_THAT(results.status().message(), HasSubstr(message));
  }
}

TEST_F(RewardClientTest, ServersWithDifferentWeightsAreAnError) {
  ScriptedServer server;
  auto client = Connect({server.address()});
  ASSERT_TRUE(client->Score(Images(1), Prompts(1)).ok());
  server.service.ThenChange([](ScoreResponse* response) { response->set_scorer_digest("d2"); });
  auto results = client->Score(Images(1), Prompts(1));
  EXPECT_EQ(results.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(results.status().message(), AllOf(HasSubstr("'d1'"), HasSubstr("'d2'")));
}

grpc::Status HangUntilCancelled(grpc::ServerContext* context, const ScoreRequest&, ScoreResponse*) {
  while (!context->IsCancelled()) std::this_thread::yield();
  return grpc::Status::CANCELLED;
}

TEST_F(RewardClientTest, TriesAgainWhenAnAttemptPassesItsDeadline) {
  options_.attempt_timeout = absl::Milliseconds(50);
  ScriptedServer server;
  server.service.Then(HangUntilCancelled);
  auto results = Connect({server.address()})->Score(Images(1), Prompts(1));
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_THAT(server.service.requests(), SizeIs(2));
}

TEST_F(RewardClientTest, TriesAgainWhenAServerThatClosesCancelsTheCall) {
  ScriptedServer server;
  server.service.ThenFail(grpc::StatusCode::CANCELLED);
  auto results = Connect({server.address()})->Score(Images(1), Prompts(1));
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_THAT(server.service.requests(), SizeIs(2));
}

TEST_F(RewardClientTest, CancellationEndsARunningCall) {
  ScriptedServer server;
  server.service.Then(HangUntilCancelled);
  auto results = Connect({server.address()})->Score(Images(1), Prompts(1), [&] {
    return !server.service.requests().empty();
  });
  EXPECT_EQ(results.status().code(), absl::StatusCode::kCancelled);
}

TEST_F(RewardClientTest, CancellationEndsTheWaitBeforeTheNextAttempt) {
  options_.initial_backoff = options_.max_backoff = absl::Minutes(1);
  ScriptedServer server;
  server.service.ThenFail(grpc::StatusCode::UNAVAILABLE);
  const absl::Time start = clock_.Now();
  auto results = Connect({server.address()})->Score(Images(1), Prompts(1), [&] {
    return clock_.Now() > start;
  });
  EXPECT_EQ(results.status().code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(server.service.requests(), SizeIs(1));
}

TEST_F(RewardClientTest, RefusesToStartWithoutAServerOrAScorer) {
  EXPECT_EQ(RewardClient::Create({}, options_).status().code(), absl::StatusCode::kInvalidArgument);
  options_.scorer.clear();
  EXPECT_EQ(RewardClient::Create({"127.0.0.1:1"}, options_).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(RewardClientTest, RefusesImagesAndPromptsOfDifferentNumber) {
  EXPECT_EQ(Connect({"127.0.0.1:1"})->Score(Images(2), Prompts(1)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace ddpo
