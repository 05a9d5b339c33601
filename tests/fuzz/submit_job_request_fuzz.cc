// A stream of SubmitJobRequest, and what becomes of the job if it is accepted.

#include "tests/fuzz/message_list.h"
#include "tests/fuzz/reward_server_under_test.h"

namespace ddpo::fuzz {
namespace {

using reward::v1::Job;
using reward::v1::SubmitJobRequest;

class SubmitJobRequestTarget : public FuzzTarget {
 public:
  std::vector<std::string> Corpus() override {
    SubmitJobRequest first;
    first.set_request_id("once");
    first.set_scorer(kScorer);
    SubmitJobRequest counted = first;
    counted.set_items_total(3);
    SubmitJobRequest items;
    for (const reward::v1::ScoreItem& item : GoodItems()) *items.add_items() = item;
    *first.add_items() = RawItem("first", 3, 2);
    return {JoinMessages({first.SerializeAsString(), items.SerializeAsString()}),
            JoinMessages({counted.SerializeAsString(), items.SerializeAsString()})};
  }

  std::string Mutate(const std::string& input, Random& random) override {
    return MutateMessages(SubmitJobRequest::default_instance(), input, random);
  }

  bool Run(const std::string& input) override {
    const std::vector<std::string> messages = SplitMessages(input);
    const RawAnswer answer = server_.Call("RewardJobs/SubmitJob", messages);
    std::vector<reward::v1::ScoreItem> items;
    for (const std::string& message : messages) {
      SubmitJobRequest request;
      if (!request.ParseFromString(message)) {
        Require(!answer.status.ok(), "a job out of what is no request");
        return false;
      }
      items.insert(items.end(), request.items().begin(), request.items().end());
    }
    CheckStatus(answer.status);
    if (!answer.status.ok()) return false;
    const Job accepted = Parse<Job>(answer);
    Require(accepted.items_total() == static_cast<int64_t>(items.size()) && !items.empty(),
            accepted.ShortDebugString());
    CheckJob(accepted.name(), items);
    reward::v1::DeleteJobRequest remove;
    remove.set_name(accepted.name());
    Require(server_.Call("RewardJobs/DeleteJob", {remove.SerializeAsString()}).status.ok(),
            "the job cannot be deleted");
    return true;
  }

 private:
  template <typename Message>
  static Message Parse(const RawAnswer& answer) {
    Message message;
    Require(answer.status.ok() && answer.messages.size() == 1 &&
                message.ParseFromString(answer.messages[0]),
            answer.status.error_message());
    return message;
  }

  // The job ends, and each item has the result that is due to it.
  void CheckJob(const std::string& name, const std::vector<reward::v1::ScoreItem>& items) {
    reward::v1::WaitJobRequest wait;
    wait.set_name(name);
    const Job job = Parse<Job>(server_.Call("RewardJobs/WaitJob", {wait.SerializeAsString()}));
    Require(job.state() == reward::v1::JOB_STATE_SUCCEEDED ||
                (job.state() == reward::v1::JOB_STATE_FAILED && job.items_succeeded() == 0),
            job.ShortDebugString());
    reward::v1::ListJobResultsRequest list;
    list.set_name(name);
    list.set_page_size(1000);
    const auto results = Parse<reward::v1::ListJobResultsResponse>(
        server_.Call("RewardJobs/ListJobResults", {list.SerializeAsString()}));
    Require(results.results_size() == static_cast<int>(items.size()), "results are missing");
    for (int i = 0; i < results.results_size(); ++i) {
      CheckResult(items[static_cast<size_t>(i)], results.results(i));
    }
  }

  RewardServerUnderTest server_;
};

}  // namespace

std::unique_ptr<FuzzTarget> MakeTarget() { return std::make_unique<SubmitJobRequestTarget>(); }

}  // namespace ddpo::fuzz
