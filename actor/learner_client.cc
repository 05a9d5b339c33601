#include "actor/learner_client.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "actor/call_watch.h"
#include "common/base/status_macros.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"

namespace ddpo {
namespace {

// Samples under way without an ack. A stream that writes them all first and reads the acks then can
// block for ever once the acks fill its flow-control window.
constexpr size_t kDeliveryWindow = 8;

// How a call ended that the watch may have cancelled.
absl::Status EndOf(const absl::Status& status, const CallWatch& watch) {
  const absl::Status verdict = watch.verdict();
  return status.ok() || verdict.ok() ? status : verdict;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LearnerClient>> LearnerClient::Create(
    const LearnerClientOptions& options) {
  DDPO_ASSIGN_OR_RETURN(const auto channel, CreateChannel(options.address, {.tls = options.tls}));
  auto client = std::unique_ptr<LearnerClient>(new LearnerClient(options));
  client->coordinator_ = cluster::v1::Coordinator::NewStub(channel);
  client->publisher_ = cluster::v1::PolicyPublisher::NewStub(channel);
  return client;
}

uint64_t LearnerClient::generation() const {
  absl::MutexLock lock(&mutex_);
  return generation_;
}

template <typename Request>
Request LearnerClient::WithSender() const {
  Request request;
  request.set_actor_id(options_.actor_id);
  request.set_incarnation(options_.incarnation);
  request.set_generation(generation());
  return request;
}

absl::Status LearnerClient::ToStatus(const grpc::Status& status,
                                     const CallRegistry& registry) const {
  if (status.error_code() == grpc::StatusCode::CANCELLED && !registry.aborted()) {
    return absl::UnavailableError(
        absl::StrCat("the learner at ", options_.address, " cancelled the call"));
  }
  return FromGrpcStatus(status);
}

absl::StatusOr<cluster::v1::RegisterResponse> LearnerClient::Register(
    const std::string& model_digest) {
  cluster::v1::RegisterRequest request;
  request.set_actor_id(options_.actor_id);
  request.set_incarnation(options_.incarnation);
  request.set_model_digest(model_digest);
  cluster::v1::RegisterResponse response;
  const auto call = calls_.Start(absl::Now() + options_.call_timeout);
  DDPO_RETURN_IF_ERROR(
      ToStatus(coordinator_->Register(call->context(), request, &response), calls_));
  absl::MutexLock lock(&mutex_);
  generation_ = response.generation();
  return response;
}

absl::StatusOr<cluster::v1::LeaseTaskResponse> LearnerClient::LeaseTask(absl::Duration wait) {
  auto request = WithSender<cluster::v1::LeaseTaskRequest>();
  request.set_wait_ms(absl::ToInt64Milliseconds(wait));
  cluster::v1::LeaseTaskResponse response;
  const auto call = waiting_.Start(absl::Now() + wait + options_.call_timeout);
  DDPO_RETURN_IF_ERROR(
      ToStatus(coordinator_->LeaseTask(call->context(), request, &response), waiting_));
  return response;
}

void LearnerClient::StopWaitingForTask() { waiting_.Abort(); }

absl::StatusOr<std::vector<uint64_t>> LearnerClient::RenewLeases(
    const std::vector<uint64_t>& lease_ids) {
  auto request = WithSender<cluster::v1::RenewLeasesRequest>();
  request.mutable_lease_ids()->Assign(lease_ids.begin(), lease_ids.end());
  cluster::v1::RenewLeasesResponse response;
  const auto call = calls_.Start(absl::Now() + options_.call_timeout);
  DDPO_RETURN_IF_ERROR(
      ToStatus(coordinator_->RenewLeases(call->context(), request, &response), calls_));
  return std::vector<uint64_t>(response.lost_lease_ids().begin(), response.lost_lease_ids().end());
}

absl::Status LearnerClient::FailTask(const std::string& task_id, uint64_t lease_id,
                                     uint64_t generation, const absl::Status& why) {
  auto request = WithSender<cluster::v1::FailTaskRequest>();
  request.set_generation(generation);
  request.set_task_id(task_id);
  request.set_lease_id(lease_id);
  request.set_code(static_cast<int>(why.code()));
  request.set_message(std::string(why.message()));
  cluster::v1::FailTaskResponse response;
  const auto call = calls_.Start(absl::Now() + options_.call_timeout);
  return ToStatus(coordinator_->FailTask(call->context(), request, &response), calls_);
}

absl::Status LearnerClient::CompleteTask(const std::string& task_id, uint64_t generation) {
  auto request = WithSender<cluster::v1::CompleteTaskRequest>();
  request.set_generation(generation);
  request.set_task_id(task_id);
  cluster::v1::CompleteTaskResponse response;
  const auto call = calls_.Start(absl::Now() + options_.call_timeout);
  return ToStatus(coordinator_->CompleteTask(call->context(), request, &response), calls_);
}

absl::Status LearnerClient::AckPolicy(int64_t version, const std::string& sha256) {
  auto request = WithSender<cluster::v1::AckPolicyRequest>();
  request.set_version(version);
  request.set_sha256(sha256);
  cluster::v1::AckPolicyResponse response;
  const auto call = calls_.Start(absl::Now() + options_.call_timeout);
  return ToStatus(publisher_->AckPolicy(call->context(), request, &response), calls_);
}

absl::StatusOr<Policy> LearnerClient::FetchPolicy(int64_t version,
                                                  const std::function<bool()>& cancelled) {
  auto request = WithSender<cluster::v1::FetchPolicyRequest>();
  request.set_version(version);
  // A UNet's weights take minutes on a slow network.
  const auto call = calls_.Start(absl::InfiniteFuture());
  CallWatch watch(call.get(), options_.call_timeout, cancelled);
  const auto reader = publisher_->FetchPolicy(call->context(), request);
  PolicyAssembler assembler;
  std::optional<Policy> policy;
  absl::Status damage;
  cluster::v1::PolicyChunk chunk;
  while (reader->Read(&chunk)) {
    auto fed = assembler.Feed(chunk);
    if (!fed.ok()) {
      damage = fed.status();
      call->context()->TryCancel();
      break;
    }
    if (fed->has_value()) policy = *std::move(fed);
    watch.Progress();
  }
  const absl::Status status = ToStatus(reader->Finish(), calls_);
  DDPO_RETURN_IF_ERROR(damage);
  // Whole and with its digest, whatever the stream's end says: to digest gigabytes may take longer
  // than the watch waits.
  if (policy.has_value() && policy->version == version) return *std::move(policy);
  DDPO_RETURN_IF_ERROR(EndOf(status, watch));
  return absl::DataLossError(
      absl::StrCat("the learner did not send the whole policy version ", version));
}

absl::Status LearnerClient::Subscribe(int64_t have_version, absl::Duration duration,
                                      const std::function<void(Policy)>& on_policy,
                                      const std::function<bool()>& cancelled) {
  auto request = WithSender<cluster::v1::SubscribeRequest>();
  request.set_have_version(have_version);
  const auto call = streams_.Start(absl::Now() + duration);
  if (cancelled && cancelled()) call->context()->TryCancel();
  const auto reader = publisher_->Subscribe(call->context(), request);
  PolicyAssembler assembler;
  absl::Status damage;
  cluster::v1::PolicyChunk chunk;
  while (reader->Read(&chunk)) {
    auto fed = assembler.Feed(chunk);
    if (!fed.ok()) {
      damage = fed.status();
      call->context()->TryCancel();
      break;
    }
    if (fed->has_value()) on_policy(**std::move(fed));
  }
  const absl::Status status = ToStatus(reader->Finish(), streams_);
  DDPO_RETURN_IF_ERROR(damage);
  DDPO_RETURN_IF_ERROR(status);
  return absl::UnavailableError("the learner ended the stream of policies");
}

absl::StatusOr<cluster::v1::TrajectoryIngest::StubInterface*> LearnerClient::Ingest(
    const std::string& address) {
  absl::MutexLock lock(&mutex_);
  auto& stub = ingests_[address];
  if (stub == nullptr) {
    // A connection of its own, so that trajectories don't hold renewals of leases up.
    DDPO_ASSIGN_OR_RETURN(
        const auto channel,
        CreateChannel(address.empty() ? options_.address : address, {.tls = options_.tls}));
    stub = cluster::v1::TrajectoryIngest::NewStub(channel);
  }
  return stub.get();
}

absl::Status LearnerClient::Deliver(
    const std::string& address, const std::vector<const cluster::v1::TrajectorySample*>& samples,
    absl::Duration timeout, const std::function<void(const cluster::v1::SampleAck&)>& on_ack,
    const std::function<bool()>& cancelled) {
  if (samples.empty()) return absl::OkStatus();
  DDPO_ASSIGN_OR_RETURN(auto* const ingest, Ingest(address));
  const auto call = calls_.Start(absl::Now() + timeout);
  const CallWatch watch(call.get(), absl::InfiniteDuration(), cancelled);
  const auto stream = ingest->Deliver(call->context());
  size_t sent = 0;
  size_t acked = 0;
  cluster::v1::SampleAck ack;
  while (acked < samples.size()) {
    if (sent < samples.size() && sent - acked < kDeliveryWindow) {
      if (!stream->Write(*samples[sent])) break;
      if (++sent == samples.size()) stream->WritesDone();
      continue;
    }
    if (!stream->Read(&ack)) break;
    ++acked;
    on_ack(ack);
  }
  // After a failed write, acks that came before may still be read.
  while (acked < sent && stream->Read(&ack)) {
    ++acked;
    on_ack(ack);
  }
  const absl::Status status = ToStatus(stream->Finish(), calls_);
  if (acked == samples.size()) return absl::OkStatus();
  DDPO_RETURN_IF_ERROR(EndOf(status, watch));
  return absl::UnavailableError(
      absl::StrCat("the stream of samples ended with ", acked, " of ", samples.size(), " acks"));
}

void LearnerClient::Abort() {
  calls_.Abort();
  waiting_.Abort();
  streams_.Abort();
}

}  // namespace ddpo
