// ScoreRequest, as a reward server gets it from anyone who reaches it.

#include "tests/fuzz/reward_server_under_test.h"

namespace ddpo::fuzz {
namespace {

class ScoreRequestTarget : public FuzzTarget {
 public:
  std::vector<std::string> Corpus() override {
    reward::v1::ScoreRequest request;
    request.set_scorer(kScorer);
    for (const reward::v1::ScoreItem& item : GoodItems()) *request.add_items() = item;
    return {request.SerializeAsString()};
  }

  std::string Mutate(const std::string& input, Random& random) override {
    return MutateSerialized(reward::v1::ScoreRequest::default_instance(), input, random);
  }

  bool Run(const std::string& input) override {
    const RawAnswer answer = server_.Call("RewardService/Score", {input});
    reward::v1::ScoreRequest request;
    if (!request.ParseFromString(input)) {
      Require(!answer.status.ok(), "an answer to what is no request");
      return false;
    }
    CheckStatus(answer.status);
    if (!answer.status.ok()) return false;
    reward::v1::ScoreResponse response;
    Require(answer.messages.size() == 1 && response.ParseFromString(answer.messages[0]),
            "OK without a response");
    Require(response.scorer() == kScorer && request.scorer() == kScorer, "another scorer");
    Require(response.results_size() == request.items_size(), "results are missing");
    for (int i = 0; i < request.items_size(); ++i) {
      CheckResult(request.items(i), response.results(i));
    }
    return true;
  }

 private:
  RewardServerUnderTest server_;
};

}  // namespace

std::unique_ptr<FuzzTarget> MakeTarget() { return std::make_unique<ScoreRequestTarget>(); }

}  // namespace ddpo::fuzz
