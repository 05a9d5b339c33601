// A stream of StreamScoreRequest.

#include <map>

#include "tests/fuzz/message_list.h"
#include "tests/fuzz/reward_server_under_test.h"

namespace ddpo::fuzz {
namespace {

using reward::v1::StreamScoreRequest;
using reward::v1::StreamScoreResponse;

class StreamScoreRequestTarget : public FuzzTarget {
 public:
  std::vector<std::string> Corpus() override {
    std::vector<std::string> messages;
    for (const reward::v1::ScoreItem& item : GoodItems()) {
      StreamScoreRequest request;
      if (messages.empty()) request.set_scorer(kScorer);
      *request.mutable_item() = item;
      messages.push_back(request.SerializeAsString());
    }
    return {JoinMessages(messages)};
  }

  std::string Mutate(const std::string& input, Random& random) override {
    return MutateMessages(StreamScoreRequest::default_instance(), input, random);
  }

  bool Run(const std::string& input) override {
    const std::vector<std::string> messages = SplitMessages(input);
    const RawAnswer answer = server_.Call("RewardService/StreamScore", messages);
    bool all_parse = true;
    Items items;
    for (const std::string& message : messages) {
      StreamScoreRequest request;
      all_parse = all_parse && request.ParseFromString(message);
      if (all_parse && request.has_item()) items.emplace(request.item().item_id(), request.item());
    }
    CheckStatus(answer.status);
    for (const std::string& message : answer.messages) {
      StreamScoreResponse response;
      Require(response.ParseFromString(message), "an answer that does not parse");
      const auto item = FindAnswered(items, response.result());
      Require(item != items.end(), "an answer for an item that was not sent");
      CheckResult(item->second, response.result());
      items.erase(item);
    }
    // What came before a fault is answered; after it, nothing is.
    Require(!answer.status.ok() || (all_parse && items.empty()), "items without an answer");
    return answer.status.ok();
  }

 private:
  // By item_id, which several may share.
  using Items = std::multimap<std::string, reward::v1::ScoreItem>;

  static Items::iterator FindAnswered(Items& items, const reward::v1::ScoreResult& result) {
    const auto [begin, end] = items.equal_range(result.item_id());
    for (auto it = begin; it != end; ++it) {
      ScorerInfo info;
      const auto input = ToScoringInput(it->second, info, kMaxPixels);
      if (input.ok() != result.has_score()) continue;
      if (!input.ok() || static_cast<double>(EncodeJpeg(input->image, 95).value().size()) / 1000 ==
                             result.score().value()) {
        return it;
      }
    }
    return items.end();
  }

  RewardServerUnderTest server_;
};

}  // namespace

std::unique_ptr<FuzzTarget> MakeTarget() { return std::make_unique<StreamScoreRequestTarget>(); }

}  // namespace ddpo::fuzz
