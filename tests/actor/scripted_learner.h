#pragma once

#include <grpcpp/grpcpp.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/sha256.h"
#include "ddpo/cluster/v1/cluster.grpc.pb.h"

namespace ddpo::testing {

// A learner that does what a test says: hands out the tasks that it was given, breaks streams,
// loses leases, sends damaged policies. Answers RunEnded once all tasks are delivered.
class ScriptedLearner {
 public:
  ScriptedLearner() : coordinator_(this), publisher_(this), ingest_(this) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&coordinator_);
    builder.RegisterService(&publisher_);
    builder.RegisterService(&ingest_);
    server_ = builder.BuildAndStart();
    address_ = absl::StrCat("127.0.0.1:", port);
  }
  ~ScriptedLearner() { ShutDown(); }

  const std::string& address() const { return address_; }
  void ShutDown() {
    {
      absl::MutexLock lock(&mutex_);
      gone_ = true;
    }
    if (server_ != nullptr) server_->Shutdown(absl::ToChronoTime(absl::Now()));
    server_.reset();
  }

  void AddTask(const std::string& id, int64_t version = 0, int samples = 3) {
    cluster::v1::RolloutTask task;
    task.set_task_id(id);
    task.set_policy_version(version);
    for (int i = 0; i < samples; ++i) {
      task.add_prompts(absl::StrCat("prompt ", i));
      task.add_seeds(static_cast<uint64_t>(i));
    }
    absl::MutexLock lock(&mutex_);
    tasks_.push_back(task);
    ++open_tasks_;
  }
  // The streams that come break: after that many samples were taken, of which the last gets no ack.
  void BreakStreamsAfter(std::deque<int> samples) {
    absl::MutexLock lock(&mutex_);
    breaks_ = std::move(samples);
  }
  void LoseLease(uint64_t lease_id) {
    absl::MutexLock lock(&mutex_);
    lost_leases_.insert(lease_id);
    --open_tasks_;
  }
  // As if the learner had been started anew: tasks that are out are out of its mind.
  void StartGeneration(uint64_t generation) {
    absl::MutexLock lock(&mutex_);
    generation_ = generation;
    open_tasks_ = static_cast<int>(tasks_.size());
  }
  // The next policies, as many as this, are sent with a wrong byte.
  void DamagePolicies(int count) {
    absl::MutexLock lock(&mutex_);
    damaged_policies_ = count;
  }
  void RefuseSamples(const std::string& why) {
    absl::MutexLock lock(&mutex_);
    refusal_ = why;
  }

  // Called before the first samples of a stream are read, and before a version is sent, which an
  // error keeps back. To be set before an actor comes.
  std::function<void()> on_deliver;
  std::function<grpc::Status()> on_fetch_policy;

  // Waits until that many tasks are handed out.
  void AwaitLeases(int count) {
    absl::MutexLock lock(&mutex_);
    const auto enough = [this, count] {
      mutex_.AssertHeld();
      return leases_ >= count;
    };
    mutex_.Await(absl::Condition(&enough));
  }

  // Samples that were taken, as in `task/index`, and how often each came.
  std::map<std::string, int> samples() {
    absl::MutexLock lock(&mutex_);
    return samples_;
  }
  std::vector<cluster::v1::FailTaskRequest> failures() {
    absl::MutexLock lock(&mutex_);
    return failures_;
  }
  std::vector<int64_t> acked_versions() {
    absl::MutexLock lock(&mutex_);
    return acked_versions_;
  }
  int registrations() {
    absl::MutexLock lock(&mutex_);
    return registrations_;
  }

 private:
  // The newest that Subscribe sends.
  static constexpr int64_t kNewestVersion = 5;

  grpc::Status CheckGeneration(uint64_t generation) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (generation == generation_) return grpc::Status::OK;
    return grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "another generation");
  }

  class CoordinatorPart : public cluster::v1::Coordinator::Service {
   public:
    explicit CoordinatorPart(ScriptedLearner* learner) : learner_(learner) {}

    grpc::Status Register(grpc::ServerContext*, const cluster::v1::RegisterRequest*,
                          cluster::v1::RegisterResponse* response) override {
      absl::MutexLock lock(&learner_->mutex_);
      ++learner_->registrations_;
      response->set_generation(learner_->generation_);
      return grpc::Status::OK;
    }
    grpc::Status LeaseTask(grpc::ServerContext* context,
                           const cluster::v1::LeaseTaskRequest* request,
                           cluster::v1::LeaseTaskResponse* response) override {
      absl::MutexLock lock(&learner_->mutex_);
      const auto ready = [this, context] {
        learner_->mutex_.AssertHeld();
        return !learner_->tasks_.empty() || learner_->open_tasks_ == 0 || learner_->gone_ ||
               context->IsCancelled();
      };
      const grpc::Status sender = learner_->CheckGeneration(request->generation());
      if (!sender.ok()) return sender;
      learner_->mutex_.AwaitWithTimeout(absl::Condition(&ready), absl::Milliseconds(20));
      if (!learner_->tasks_.empty()) {
        *response->mutable_lease()->mutable_task() = learner_->tasks_.front();
        learner_->tasks_.pop_front();
        response->mutable_lease()->set_lease_id(static_cast<uint64_t>(++learner_->leases_));
        response->mutable_lease()->set_duration_ms(60);
      } else if (learner_->open_tasks_ == 0) {
        response->mutable_ended()->set_reason("all done");
      } else {
        response->mutable_none();
      }
      return grpc::Status::OK;
    }
    grpc::Status RenewLeases(grpc::ServerContext*, const cluster::v1::RenewLeasesRequest* request,
                             cluster::v1::RenewLeasesResponse* response) override {
      absl::MutexLock lock(&learner_->mutex_);
      const grpc::Status sender = learner_->CheckGeneration(request->generation());
      if (!sender.ok()) return sender;
      for (const uint64_t id : request->lease_ids()) {
        if (learner_->lost_leases_.contains(id)) response->add_lost_lease_ids(id);
      }
      return grpc::Status::OK;
    }
    grpc::Status FailTask(grpc::ServerContext*, const cluster::v1::FailTaskRequest* request,
                          cluster::v1::FailTaskResponse*) override {
      absl::MutexLock lock(&learner_->mutex_);
      learner_->failures_.push_back(*request);
      --learner_->open_tasks_;
      return grpc::Status::OK;
    }

   private:
    ScriptedLearner* const learner_;
  };

  class PublisherPart : public cluster::v1::PolicyPublisher::Service {
   public:
    explicit PublisherPart(ScriptedLearner* learner) : learner_(learner) {}

    grpc::Status Subscribe(grpc::ServerContext* context,
                           const cluster::v1::SubscribeRequest* request,
                           grpc::ServerWriter<cluster::v1::PolicyChunk>* writer) override {
      {
        absl::MutexLock lock(&learner_->mutex_);
        const grpc::Status sender = learner_->CheckGeneration(request->generation());
        if (!sender.ok()) return sender;
      }
      if (request->have_version() < kNewestVersion) Send(kNewestVersion, writer);
      absl::MutexLock lock(&learner_->mutex_);
      while (!learner_->gone_ && !context->IsCancelled()) {
        learner_->mutex_.AwaitWithTimeout(absl::Condition(&learner_->gone_), absl::Milliseconds(5));
      }
      return grpc::Status::OK;
    }
    grpc::Status FetchPolicy(grpc::ServerContext*, const cluster::v1::FetchPolicyRequest* request,
                             grpc::ServerWriter<cluster::v1::PolicyChunk>* writer) override {
      if (learner_->on_fetch_policy) {
        const grpc::Status status = learner_->on_fetch_policy();
        if (!status.ok()) return status;
      }
      Send(request->version(), writer);
      return grpc::Status::OK;
    }
    grpc::Status AckPolicy(grpc::ServerContext*, const cluster::v1::AckPolicyRequest* request,
                           cluster::v1::AckPolicyResponse*) override {
      absl::MutexLock lock(&learner_->mutex_);
      learner_->acked_versions_.push_back(request->version());
      return grpc::Status::OK;
    }

   private:
    void Send(int64_t version, grpc::ServerWriter<cluster::v1::PolicyChunk>* writer) {
      std::string bytes = absl::StrCat("policy ", version);
      cluster::v1::PolicyChunk chunk;
      chunk.mutable_header()->set_version(version);
      chunk.mutable_header()->set_total_bytes(static_cast<int64_t>(bytes.size()));
      chunk.mutable_header()->set_sha256(Sha256Hex(bytes));
      writer->Write(chunk);
      absl::MutexLock lock(&learner_->mutex_);
      if (learner_->damaged_policies_-- > 0) bytes[0] = 'P';
      chunk.set_data(bytes);
      writer->Write(chunk);
    }

    ScriptedLearner* const learner_;
  };

  class IngestPart : public cluster::v1::TrajectoryIngest::Service {
   public:
    explicit IngestPart(ScriptedLearner* learner) : learner_(learner) {}

    grpc::Status Deliver(grpc::ServerContext*,
                         grpc::ServerReaderWriter<cluster::v1::SampleAck,
                                                  cluster::v1::TrajectorySample>* stream) override {
      if (learner_->on_deliver) learner_->on_deliver();
      int until_break = -1;
      {
        absl::MutexLock lock(&learner_->mutex_);
        if (!learner_->breaks_.empty()) {
          until_break = learner_->breaks_.front();
          learner_->breaks_.pop_front();
        }
      }
      cluster::v1::TrajectorySample sample;
      for (int i = 0; stream->Read(&sample); ++i) {
        absl::MutexLock lock(&learner_->mutex_);
        const grpc::Status sender = learner_->CheckGeneration(sample.generation());
        if (!sender.ok()) return sender;
        cluster::v1::SampleAck ack;
        ack.set_task_id(sample.task_id());
        ack.set_sample_index(sample.sample_index());
        ack.set_outcome(cluster::v1::SampleAck::TAKEN);
        if (!learner_->refusal_.empty()) {
          ack.set_outcome(cluster::v1::SampleAck::REFUSED);
          ack.set_message(learner_->refusal_);
        } else {
          const auto id = absl::StrCat(sample.task_id(), "/", sample.sample_index());
          if (++learner_->samples_[id] == 1 && ++learner_->taken_[sample.task_id()] == 3) {
            --learner_->open_tasks_;
          }
        }
        if (i == until_break) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "broken");
        stream->Write(ack);
      }
      return grpc::Status::OK;
    }

   private:
    ScriptedLearner* const learner_;
  };

  absl::Mutex mutex_;
  std::deque<cluster::v1::RolloutTask> tasks_ ABSL_GUARDED_BY(mutex_);
  int open_tasks_ ABSL_GUARDED_BY(mutex_) = 0;  // neither delivered, given back nor lost
  int leases_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t generation_ ABSL_GUARDED_BY(mutex_) = 1;
  int registrations_ ABSL_GUARDED_BY(mutex_) = 0;
  int damaged_policies_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<int> breaks_ ABSL_GUARDED_BY(mutex_);
  std::string refusal_ ABSL_GUARDED_BY(mutex_);
  std::set<uint64_t> lost_leases_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, int> samples_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, int> taken_ ABSL_GUARDED_BY(mutex_);  // by task
  std::vector<cluster::v1::FailTaskRequest> failures_ ABSL_GUARDED_BY(mutex_);
  std::vector<int64_t> acked_versions_ ABSL_GUARDED_BY(mutex_);
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;
  CoordinatorPart coordinator_;
  PublisherPart publisher_;
  IngestPart ingest_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace ddpo::testing
