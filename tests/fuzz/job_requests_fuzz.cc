// The requests about jobs that are there already: names, page tokens, timeouts.

#include "tests/fuzz/reward_server_under_test.h"

namespace ddpo::fuzz {
namespace {

namespace v1 = reward::v1;

class JobRequestsTarget : public FuzzTarget {
 public:
  JobRequestsTarget() {
    SubmitJob();
    methods_.push_back({"RewardJobs/GetJob", Named<v1::GetJobRequest>()});
    methods_.push_back({"RewardJobs/WaitJob", Named<v1::WaitJobRequest>()});
    methods_.push_back({"RewardJobs/CancelJob", Named<v1::CancelJobRequest>()});
    methods_.push_back({"RewardJobs/ListJobs", FirstPage<v1::ListJobsRequest>()});
    methods_.push_back({"RewardJobs/ListJobResults", Named<v1::ListJobResultsRequest>()});
    auto page = FirstPage<v1::ListJobResultsRequest>();
    static_cast<v1::ListJobResultsRequest&>(*page).set_name(job_);
    methods_.push_back({"RewardJobs/ListJobResults", std::move(page)});
    auto wait = Named<v1::WaitJobRequest>();
    static_cast<v1::WaitJobRequest&>(*wait).mutable_timeout()->set_seconds(1);
    methods_.push_back({"RewardJobs/WaitJob", std::move(wait)});
    methods_.push_back({"RewardService/ListScorers", std::make_unique<v1::ListScorersRequest>()});
    // Of another job: this one has to stay for the others.
    auto remove = std::make_unique<v1::DeleteJobRequest>();
    remove->set_name("jobs/none");
    methods_.push_back({"RewardJobs/DeleteJob", std::move(remove)});
  }

  // The first byte says which method.
  std::vector<std::string> Corpus() override {
    std::vector<std::string> inputs;
    for (size_t i = 0; i < methods_.size(); ++i) {
      inputs.push_back(static_cast<char>(i) + methods_[i].good->SerializeAsString());
    }
    return inputs;
  }

  std::string Mutate(const std::string& input, Random& random) override {
    if (input.empty()) return std::string(1, static_cast<char>(random.Next()));
    return input[0] + MutateSerialized(*MethodOf(input).good, input.substr(1), random);
  }

  bool Run(const std::string& input) override {
    if (input.empty()) return false;
    const Method& method = MethodOf(input);
    const RawAnswer answer = server_.Call(method.name, {input.substr(1)});
    const std::unique_ptr<google::protobuf::Message> request(method.good->New());
    if (!request->ParseFromString(input.substr(1))) {
      Require(!answer.status.ok(), "an answer to what is no request");
      return false;
    }
    CheckStatus(answer.status);
    Require(answer.status.ok() == (answer.messages.size() == 1), "OK without a response");
    return answer.status.ok();
  }

 private:
  struct Method {
    std::string name;
    std::unique_ptr<google::protobuf::Message> good;
  };

  void SubmitJob() {
    v1::SubmitJobRequest request;
    request.set_request_id("once");
    request.set_scorer(kScorer);
    for (const v1::ScoreItem& item : GoodItems()) *request.add_items() = item;
    v1::Job job;
    const RawAnswer answer = server_.Call("RewardJobs/SubmitJob", {request.SerializeAsString()});
    Require(answer.status.ok() && job.ParseFromString(answer.messages[0]), "no job");
    job_ = job.name();
    v1::WaitJobRequest wait;
    wait.set_name(job_);
    Require(server_.Call("RewardJobs/WaitJob", {wait.SerializeAsString()}).status.ok(), "no end");
  }

  template <typename Request>
  std::unique_ptr<google::protobuf::Message> Named() const {
    auto request = std::make_unique<Request>();
    request->set_name(job_);
    return request;
  }

  template <typename Request>
  static std::unique_ptr<google::protobuf::Message> FirstPage() {
    auto request = std::make_unique<Request>();
    request->set_page_size(1);
    request->set_page_token("am9ic3wx");
    return request;
  }

  const Method& MethodOf(const std::string& input) const {
    return methods_[static_cast<uint8_t>(input[0]) % methods_.size()];
  }

  RewardServerUnderTest server_;
  std::string job_;
  std::vector<Method> methods_;
};

}  // namespace

std::unique_ptr<FuzzTarget> MakeTarget() { return std::make_unique<JobRequestsTarget>(); }

}  // namespace ddpo::fuzz
