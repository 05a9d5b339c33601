// What the reward service answers, over real connections: each kind of call with each way it can
// end.
#include "reward_server/service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "tests/reward_server/service_fixture.h"

namespace ddpo {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Le;
using ::testing::SizeIs;

using reward::v1::ScoreRequest;
using reward::v1::ScoreResponse;
using reward::v1::ScoreResult;
using reward::v1::StreamScoreRequest;
using reward::v1::StreamScoreResponse;
using Stream = grpc::ClientReaderWriter<StreamScoreRequest, StreamScoreResponse>;

class ServiceTest : public testing::ServiceFixture {
 protected:
  static StreamScoreRequest StreamRequest(const std::string& id, int width) {
    StreamScoreRequest request;
    request.set_scorer("width");
    *request.mutable_item() = Item(id, width);
    return request;
  }

  // The rest of the stream's answers, by item.
  static std::map<std::string, ScoreResult> ReadAll(Stream* stream) {
    std::map<std::string, ScoreResult> results;
    StreamScoreResponse response;
    while (stream->Read(&response)) {
      const std::string id = response.result().item_id();
      EXPECT_TRUE(results.emplace(id, response.result()).second) << "two answers for " << id;
      EXPECT_EQ(response.scorer_digest(), "d1");
    }
    return results;
  }

  grpc::Status StreamOnce(const StreamScoreRequest& request) {
    grpc::ClientContext context;
    auto stream = stub_->StreamScore(&context);
    stream->Write(request);
    stream->WritesDone();
    ReadAll(stream.get());
    return stream->Finish();
  }
};

TEST_F(ServiceTest, ListScorersDescribesEachOne) {
  Start();
  grpc::ClientContext context;
  reward::v1::ListScorersResponse response;
  ASSERT_TRUE(stub_->ListScorers(&context, {}, &response).ok());
  ASSERT_EQ(response.scorers_size(), 2);
  const reward::v1::Scorer& prompted = response.scorers(0);
  EXPECT_EQ(prompted.name(), "prompted");
  EXPECT_TRUE(prompted.needs_prompt());
  EXPECT_EQ(prompted.min_score(), 0);
  EXPECT_FALSE(prompted.has_max_score());
  const reward::v1::Scorer& width = response.scorers(1);
  EXPECT_EQ(width.name(), "width");
  EXPECT_EQ(width.kind(), "fake");
  EXPECT_EQ(width.description(), "The image's width.");
  EXPECT_EQ(width.digest(), "d1");
  EXPECT_EQ(width.max_batch_size(), 4u);
  EXPECT_TRUE(width.higher_is_better());
  EXPECT_FALSE(width.needs_prompt());
}

TEST_F(ServiceTest, ScoreAnswersInRequestOrder) {
  Start();
  ScoreResponse response;
  const grpc::Status status = Score(Request(37), &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.scorer(), "width");
  EXPECT_EQ(response.scorer_digest(), "d1");
  ASSERT_EQ(response.results_size(), 37);
  for (int i = 0; i < 37; ++i) {
    EXPECT_EQ(response.results(i).item_id(), absl::StrCat(i));
    EXPECT_EQ(response.results(i).score().value(), i + 1);
  }
  EXPECT_THAT(control_.batches(), Each(SizeIs(Le(4u))));
}

TEST_F(ServiceTest, ScoreGivesAnItemsErrorBesideTheOthersScores) {
  Start();
  ScoreRequest request = Request(3);
  request.mutable_items(0)->set_prompt("fail");
  request.mutable_items(1)->set_prompt("nan");
  ScoreResponse response;
  ASSERT_TRUE(Score(request, &response).ok());
  EXPECT_EQ(response.results(0).error().code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(response.results(0).error().reason(), "FAILED_PRECONDITION");
  EXPECT_EQ(response.results(0).error().message(), "asked to fail");
  EXPECT_EQ(response.results(1).error().code(), grpc::StatusCode::INTERNAL);
  EXPECT_FALSE(response.results(1).has_score());
  EXPECT_EQ(response.results(2).score().value(), 3);
}

TEST_F(ServiceTest, ScoreWithAnUnknownScorerListsTheKnownOnes) {
  Start();
  ScoreRequest request = Request(1);
  request.set_scorer("beauty");
  ScoreResponse response;
  const grpc::Status status = Score(request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), AllOf(HasSubstr("'beauty'"), HasSubstr("prompted, width")));
}

TEST_F(ServiceTest, ScoreWithoutItemsIsRefused) {
  Start();
  ScoreResponse response;
  EXPECT_EQ(Score(Request(0), &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ServiceTest, ScoreRefusesAnItemWithoutThePromptThatTheScorerNeeds) {
  Start();
  ScoreRequest request = Request(2);
  request.set_scorer("prompted");
  request.mutable_items(1)->set_prompt("a cat");
  ScoreResponse response;
  ASSERT_TRUE(Score(request, &response).ok());
  EXPECT_EQ(response.results(0).error().code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(response.results(0).error().reason(), "PROMPT_MISSING");
  EXPECT_EQ(response.results(1).score().value(), 2);
}

TEST_F(ServiceTest, CancelledScoreFreesItsPlacesAndIsNotComputed) {
  Start();
  std::thread blocker = Block();
  grpc::ClientContext context;
  SetDeadline(&context, std::chrono::seconds(60));
  grpc::Status status;
  std::thread caller([&] {
    ScoreResponse response;
    status = stub_->Score(&context, Request(30, "unwanted"), &response);
  });
  AwaitWaiting(30);
  context.TryCancel();
  caller.join();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED);
  AwaitWaiting(0);
  control_.Open();
  blocker.join();
  EXPECT_THAT(control_.batches(), SizeIs(1));
}

TEST_F(ServiceTest, ScorePastItsDeadlineIsNotComputed) {
  Start();
  std::thread blocker = Block();
  grpc::ClientContext context;
  SetDeadline(&context, std::chrono::milliseconds(50));
  ScoreResponse response;
  const grpc::Status status = stub_->Score(&context, Request(3, "late"), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  AwaitWaiting(0);
  control_.Open();
  blocker.join();
  EXPECT_THAT(control_.batches(), SizeIs(1));
}

TEST_F(ServiceTest, ScoreWithoutADeadlineEndsAtTheServersOwn) {
  options_.max_item_duration = absl::Milliseconds(20);
  Start();
  std::thread blocker = Block();
  std::thread caller([this] {
    grpc::ClientContext context;
    ScoreResponse response;
    EXPECT_EQ(stub_->Score(&context, Request(3, "late"), &response).error_code(),
              grpc::StatusCode::DEADLINE_EXCEEDED);
  });
  AwaitWaiting(3);
  const absl::Time late = absl::Now() + absl::Milliseconds(20);
  while (absl::Now() < late) std::this_thread::yield();
  control_.Open();
  caller.join();
  blocker.join();
}

TEST_F(ServiceTest, ScoreIsRefusedWithARetryHintWhenTheQueueIsFull) {
  batching_.max_queue_items = 2;
  Start();
  std::thread blocker = Block();
  std::thread waiting([this] {
    ScoreResponse response;
    EXPECT_TRUE(Score(Request(2), &response).ok());
  });
  AwaitWaiting(2);
  grpc::ClientContext context;
  ScoreResponse response;
  const grpc::Status status = stub_->Score(&context, Request(1), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("queue of scorer width"));
  const auto hint = context.GetServerTrailingMetadata().find("retry-after-ms");
  ASSERT_NE(hint, context.GetServerTrailingMetadata().end());
  int64_t milliseconds = 0;
  EXPECT_TRUE(
      absl::SimpleAtoi(absl::string_view(hint->second.data(), hint->second.size()), &milliseconds));
  EXPECT_GE(milliseconds, 10);
  control_.Open();
  waiting.join();
  blocker.join();
}

TEST_F(ServiceTest, DrainLetsAScoreEndAndRefusesTheNext) {
  Start();
  std::thread blocker = Block();
  service_->Drain();
  ScoreResponse response;
  const grpc::Status status = Score(Request(1), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("draining"));
  control_.Open();
  blocker.join();
}

TEST_F(ServiceTest, AbortEndsAWaitingScoreWithUnavailable) {
  Start();
  std::thread blocker = Block();
  std::thread caller([this] {
    ScoreResponse response;
    EXPECT_EQ(Score(Request(30), &response).error_code(), grpc::StatusCode::UNAVAILABLE);
  });
  AwaitWaiting(30);
  std::thread abort([this] { pool_->Abort(); });
  caller.join();
  control_.Open();
  abort.join();
  blocker.join();
}

TEST_F(ServiceTest, StreamScoreAnswersEachItemOnce) {
  options_.max_stream_items = 4;
  Start();
  grpc::ClientContext context;
  SetDeadline(&context, std::chrono::seconds(60));
  auto stream = stub_->StreamScore(&context);
  std::thread writer([&] {
    for (int i = 0; i < 300; ++i) {
      StreamScoreRequest request = StreamRequest(absl::StrCat(i), i + 1);
      if (i > 0) request.clear_scorer();
      EXPECT_TRUE(stream->Write(request));
    }
    stream->WritesDone();
  });
  const std::map<std::string, ScoreResult> results = ReadAll(stream.get());
  writer.join();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(results.size(), 300u);
  for (const auto& [id, result] : results) EXPECT_EQ(result.score().value(), std::stoi(id) + 1);
}

TEST_F(ServiceTest, StreamScoreReadsNoFurtherThanItMayHold) {
  options_.max_stream_items = 5;
  Start();
  std::thread blocker = Block();
  grpc::ClientContext context;
  SetDeadline(&context, std::chrono::seconds(60));
  auto stream = stub_->StreamScore(&context);
  for (int i = 0; i < 40; ++i) stream->Write(StreamRequest(absl::StrCat(i), 1));
  stream->WritesDone();
  AwaitWaiting(5);
  // Another call goes all the way through the server and its queue in the meantime.
  grpc::ClientContext other;
  reward::v1::ListScorersResponse scorers;
  EXPECT_TRUE(stub_->ListScorers(&other, {}, &scorers).ok());
  EXPECT_EQ(batcher()->stats().waiting_items, 5);
  control_.Open();
  EXPECT_EQ(ReadAll(stream.get()).size(), 40u);
  EXPECT_TRUE(stream->Finish().ok());
  blocker.join();
}

TEST_F(ServiceTest, StreamScoreNeedsAKnownScorerThatStaysTheSame) {
  Start();
  StreamScoreRequest request = StreamRequest("0", 1);
  request.clear_scorer();
  EXPECT_EQ(StreamOnce(request).error_code(), grpc::StatusCode::NOT_FOUND);
  request.set_scorer("beauty");
  const grpc::Status status = StreamOnce(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("prompted, width"));

  grpc::ClientContext context;
  auto stream = stub_->StreamScore(&context);
  stream->Write(StreamRequest("0", 1));
  request = StreamRequest("1", 1);
  request.set_scorer("prompted");
  stream->Write(request);
  // What was accepted before the mistake is answered.
  EXPECT_THAT(ReadAll(stream.get()), SizeIs(1));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ServiceTest, StreamScoreRefusesAMessageThatDoesNotParse) {
  Start();
  grpc::ClientContext context;
  SetDeadline(&context, std::chrono::seconds(60));
  auto stream = stub_->StreamScore(&context);
  stream->Write(StreamRequest("0", 1));
  StreamScoreRequest latin1 = StreamRequest("1", 1);
  latin1.mutable_item()->set_prompt("caf\xe9");
  stream->Write(latin1);
  EXPECT_THAT(ReadAll(stream.get()), SizeIs(1));
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("ddpo.reward.v1.StreamScoreRequest"));
}

TEST_F(ServiceTest, AHolderOfATokenIsOneCallerThroughAllOfItsConnections) {
  options_.callers_have_tokens = true;
  Start();
  std::thread blocker = Block();
  std::vector<std::thread> calls;
  int64_t waiting = 0;
  const auto call = [&](const std::string& token, int items) {
    calls.emplace_back([this, token, items] {
      grpc::ClientContext context;
      SetDeadline(&context, std::chrono::seconds(60));
      context.AddMetadata("authorization", "Bearer " + token);
      ScoreResponse response;
      EXPECT_TRUE(NewStub()->Score(&context, Request(items, token), &response).ok());
    });
    AwaitWaiting(waiting += items);
  };
  for (int connection = 0; connection < 3; ++connection) call("many", 20);
  call("few", 5);
  control_.Open();
  for (std::thread& thread : calls) thread.join();
  blocker.join();
  std::vector<std::string> order;
  for (const auto& batch : control_.batches())
    order.insert(order.end(), batch.begin(), batch.end());
  const auto last = std::find(order.rbegin(), order.rend(), "few");
  const auto before = std::count(last, order.rend(), "many");
  // Two batches were decoded already. With a turn for each connection it would be 8 + 15.
  EXPECT_LE(before, 8 + 5);
}

TEST_F(ServiceTest, CancelledStreamScoreFreesItsPlacesAndIsNotComputed) {
  Start();
  std::thread blocker = Block();
  grpc::ClientContext context;
  auto stream = stub_->StreamScore(&context);
  for (int i = 0; i < 30; ++i) stream->Write(StreamRequest(absl::StrCat(i), 1));
  AwaitWaiting(30);
  context.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  AwaitWaiting(0);
  control_.Open();
  blocker.join();
  EXPECT_THAT(control_.batches(), SizeIs(1));
}

TEST_F(ServiceTest, StreamScorePastItsDeadlineIsNotComputed) {
  Start();
  std::thread blocker = Block();
  grpc::ClientContext context;
  SetDeadline(&context, std::chrono::milliseconds(50));
  auto stream = stub_->StreamScore(&context);
  stream->Write(StreamRequest("0", 1));
  stream->WritesDone();
  ReadAll(stream.get());
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  AwaitWaiting(0);
  control_.Open();
  blocker.join();
  EXPECT_THAT(control_.batches(), SizeIs(1));
}

TEST_F(ServiceTest, StreamScoreAnswersAnItemThatFindsTheQueueFullAndGoesOn) {
  batching_.max_queue_items = 2;
  Start();
  std::thread blocker = Block();
  grpc::ClientContext context;
  SetDeadline(&context, std::chrono::seconds(60));
  auto stream = stub_->StreamScore(&context);
  for (int i = 0; i < 3; ++i) stream->Write(StreamRequest(absl::StrCat(i), 1));
  StreamScoreResponse refused;
  ASSERT_TRUE(stream->Read(&refused));
  EXPECT_EQ(refused.result().item_id(), "2");
  EXPECT_EQ(refused.result().error().code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(refused.result().error().reason(), "QUEUE_FULL");
  control_.Open();
  stream->Write(StreamRequest("3", 1));
  stream->WritesDone();
  EXPECT_GE(ReadAll(stream.get()).size(), 2u);
  EXPECT_TRUE(stream->Finish().ok());
  blocker.join();
}

TEST_F(ServiceTest, DrainAnswersWhatAStreamHasSentAndThenEndsIt) {
  Start();
  std::thread blocker = Block();
  grpc::ClientContext context;
  SetDeadline(&context, std::chrono::seconds(60));
  auto stream = stub_->StreamScore(&context);
  for (int i = 0; i < 10; ++i) stream->Write(StreamRequest(absl::StrCat(i), 1));
  AwaitWaiting(10);
  grpc::ClientContext idle_context;
  SetDeadline(&idle_context, std::chrono::seconds(60));
  auto idle = stub_->StreamScore(&idle_context);
  idle->Write(StreamRequest("0", 1));
  AwaitWaiting(11);
  service_->Drain();
  control_.Open();
  EXPECT_THAT(ReadAll(stream.get()), SizeIs(10));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(ReadAll(idle.get()), SizeIs(1));
  EXPECT_EQ(idle->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(StreamOnce(StreamRequest("0", 1)).error_code(), grpc::StatusCode::UNAVAILABLE);
  blocker.join();
}

TEST_F(ServiceTest, AbortAnswersAStreamsWaitingItemsWithAnError) {
  Start();
  std::thread blocker = Block();
  grpc::ClientContext context;
  SetDeadline(&context, std::chrono::seconds(60));
  auto stream = stub_->StreamScore(&context);
  for (int i = 0; i < 10; ++i) stream->Write(StreamRequest(absl::StrCat(i), 1));
  AwaitWaiting(10);
  service_->Drain();
  std::thread abort([this] { pool_->Abort(); });
  const std::map<std::string, ScoreResult> results = ReadAll(stream.get());
  EXPECT_THAT(results, SizeIs(10));
  for (const auto& [id, result] : results) {
    EXPECT_EQ(result.error().code(), grpc::StatusCode::UNAVAILABLE) << id;
  }
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  control_.Open();
  abort.join();
  blocker.join();
}

TEST_F(ServiceTest, ServesSixtyFourClientsAtOnce) {
  Start();
  std::vector<std::thread> clients;
  for (int client = 0; client < 64; ++client) {
    clients.emplace_back([this] {
      auto stub = NewStub();
      for (int round = 0; round < 4; ++round) {
        grpc::ClientContext context;
        SetDeadline(&context, std::chrono::seconds(60));
        ScoreResponse response;
        const grpc::Status status = stub->Score(&context, Request(8), &response);
        ASSERT_TRUE(status.ok()) << status.error_message();
        for (int i = 0; i < 8; ++i) EXPECT_EQ(response.results(i).score().value(), i + 1);
      }
      grpc::ClientContext context;
      SetDeadline(&context, std::chrono::seconds(60));
      auto stream = stub->StreamScore(&context);
      for (int i = 0; i < 8; ++i) stream->Write(StreamRequest(absl::StrCat(i), i + 1));
      stream->WritesDone();
      EXPECT_THAT(ReadAll(stream.get()), SizeIs(8));
      EXPECT_TRUE(stream->Finish().ok());
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(batcher()->stats().scored_items, 64 * 5 * 8);
}

}  // namespace
}  // namespace ddpo
