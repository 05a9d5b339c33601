// Every other message that an actor sends to a learner: to the coordinator and the policy
// publisher.

#include <iterator>

#include "absl/strings/str_cat.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "learner/coordinator_service.h"
#include "learner/ingest_service.h"
#include "learner/policy_service.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/raw_call.h"

namespace ddpo::fuzz {
namespace {

namespace v1 = cluster::v1;

constexpr uint64_t kGeneration = 5;

// A good message from the actor that is registered.
template <typename Request>
std::unique_ptr<google::protobuf::Message> FromActor() {
  auto request = std::make_unique<Request>();
  request->set_actor_id("actor-0");
  request->set_incarnation(1);
  if constexpr (requires { request->set_generation(kGeneration); }) {
    request->set_generation(kGeneration);
  }
  if constexpr (requires { request->set_model_digest(""); }) request->set_model_digest("model");
  return request;
}

class ActorMessagesTarget : public FuzzTarget {
 public:
  ActorMessagesTarget()
      : coordinator_(Options()),
        buffer_(2, {1, 1, 2}, 0),
        monitor_(&coordinator_, &buffer_, 10),
        store_(2),
        coordinator_service_(&coordinator_, &monitor_),
        policy_service_(&coordinator_, &store_) {
    store_.Publish(0, "weights");
    coordinator_.Publish(0);
    server_ = RpcServer::Start({}, {&coordinator_service_, &policy_service_}).value();
    channel_ = CreateChannel(server_->address()).value();
    methods_.push_back({"Coordinator/Register", FromActor<v1::RegisterRequest>()});
    methods_.push_back({"Coordinator/LeaseTask", FromActor<v1::LeaseTaskRequest>()});
    methods_.push_back({"Coordinator/RenewLeases", FromActor<v1::RenewLeasesRequest>()});
    methods_.push_back({"Coordinator/FailTask", FromActor<v1::FailTaskRequest>()});
    methods_.push_back({"Coordinator/GetStatus", std::make_unique<v1::GetStatusRequest>()});
    methods_.push_back({"PolicyPublisher/Subscribe", FromActor<v1::SubscribeRequest>()});
    methods_.push_back({"PolicyPublisher/FetchPolicy", FromActor<v1::FetchPolicyRequest>()});
    methods_.push_back({"PolicyPublisher/AckPolicy", FromActor<v1::AckPolicyRequest>()});
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
    // LeaseTask waits for a task and Subscribe for news, as they should: there is a task for the
    // first, and the second has to be cut short.
    if (coordinator_.waiting_tasks() == 0) AddTask();
    v1::RegisterRequest registration;
    registration.set_actor_id("actor-0");
    registration.set_incarnation(1);
    Require(coordinator_.Register(registration).ok(), "the actor cannot register");
    const Method& method = MethodOf(input);
    const bool endless = method.name == "PolicyPublisher/Subscribe";
    const RawAnswer answer =
        CallRaw(channel_, absl::StrCat("/ddpo.cluster.v1.", method.name), {input.substr(1)},
                endless ? std::chrono::milliseconds(2) : std::chrono::seconds(30));
    const std::unique_ptr<google::protobuf::Message> request(method.good->New());
    if (!request->ParseFromString(input.substr(1))) {
      Require(!answer.status.ok(), "an answer to what is no request");
      return false;
    }
    CheckStatus(answer.status, endless);
    return answer.status.ok() || !answer.messages.empty();
  }

 private:
  struct Method {
    std::string name;
    std::unique_ptr<google::protobuf::Message> good;
  };

  static CoordinatorOptions Options() {
    CoordinatorOptions options;
    options.generation = kGeneration;
    options.model_digest = "model";
    options.max_task_attempts = 1 << 30;
    return options;
  }

  const Method& MethodOf(const std::string& input) const {
    return methods_[static_cast<uint8_t>(input[0]) % methods_.size()];
  }

  void AddTask() {
    v1::RolloutTask task;
    task.set_task_id(absl::StrCat("task-", next_task_++));
    task.add_prompts("a cat");
    task.add_seeds(1);
    coordinator_.AddTasks({task});
  }

  // Every outcome is one that the protocol names; a fault of the server's own is none.
  static void CheckStatus(const grpc::Status& status, bool endless) {
    switch (status.error_code()) {
      case grpc::StatusCode::OK:
      case grpc::StatusCode::INVALID_ARGUMENT:
      case grpc::StatusCode::NOT_FOUND:
      case grpc::StatusCode::FAILED_PRECONDITION:
      case grpc::StatusCode::DATA_LOSS:
        return;
      default:
        Require(endless && status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED,
                absl::StrCat("status ", status.error_code(), ": ", status.error_message()));
    }
  }

  Coordinator coordinator_;
  TrajectoryBuffer buffer_;
  RunMonitor monitor_;
  PolicyStore store_;
  CoordinatorService coordinator_service_;
  PolicyService policy_service_;
  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::vector<Method> methods_;
  int64_t next_task_ = 0;
};

}  // namespace

std::unique_ptr<FuzzTarget> MakeTarget() { return std::make_unique<ActorMessagesTarget>(); }

}  // namespace ddpo::fuzz
