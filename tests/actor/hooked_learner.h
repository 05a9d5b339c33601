#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/base/sha256.h"
#include "ddpo/cluster/v1/cluster.grpc.pb.h"

namespace ddpo::testing {

// A learner whose streams do what a test's functions do.
class HookedLearner {
 public:
  using PolicyWriter = grpc::ServerWriter<cluster::v1::PolicyChunk>;
  using SampleStream =
      grpc::ServerReaderWriter<cluster::v1::SampleAck, cluster::v1::TrajectorySample>;

  HookedLearner() : publisher_(this), ingest_(this) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&publisher_);
    builder.RegisterService(&ingest_);
    server_ = builder.BuildAndStart();
    address_ = absl::StrCat("127.0.0.1:", port);
  }
  ~HookedLearner() { server_->Shutdown(absl::ToChronoTime(absl::Now())); }

  const std::string& address() const { return address_; }

  // To be set before the first call.
  std::function<grpc::Status(grpc::ServerContext*, PolicyWriter*)> subscribe, fetch;
  std::function<grpc::Status(grpc::ServerContext*, SampleStream*)> deliver;

  // Sends nothing until the client is gone.
  static grpc::Status StaySilent(grpc::ServerContext* context) {
    while (!context->IsCancelled()) absl::SleepFor(absl::Milliseconds(1));
    return grpc::Status::CANCELLED;
  }
  static void SendHeader(int64_t version, const std::string& bytes, PolicyWriter* writer) {
    cluster::v1::PolicyChunk chunk;
    chunk.mutable_header()->set_version(version);
    chunk.mutable_header()->set_total_bytes(static_cast<int64_t>(bytes.size()));
    chunk.mutable_header()->set_sha256(Sha256Hex(bytes));
    writer->Write(chunk);
  }
  static void SendBytes(const std::string& bytes, PolicyWriter* writer) {
    cluster::v1::PolicyChunk chunk;
    chunk.set_data(bytes);
    writer->Write(chunk);
  }
  static void SendPolicy(int64_t version, const std::string& bytes, PolicyWriter* writer) {
    SendHeader(version, bytes, writer);
    SendBytes(bytes, writer);
  }

 private:
  class PublisherPart : public cluster::v1::PolicyPublisher::Service {
   public:
    explicit PublisherPart(HookedLearner* learner) : learner_(learner) {}

    grpc::Status Subscribe(grpc::ServerContext* context, const cluster::v1::SubscribeRequest*,
                           PolicyWriter* writer) override {
      return learner_->subscribe(context, writer);
    }
    grpc::Status FetchPolicy(grpc::ServerContext* context, const cluster::v1::FetchPolicyRequest*,
                             PolicyWriter* writer) override {
      return learner_->fetch(context, writer);
    }

   private:
    HookedLearner* const learner_;
  };

  class IngestPart : public cluster::v1::TrajectoryIngest::Service {
   public:
    explicit IngestPart(HookedLearner* learner) : learner_(learner) {}

    grpc::Status Deliver(grpc::ServerContext* context, SampleStream* stream) override {
      return learner_->deliver(context, stream);
    }

   private:
    HookedLearner* const learner_;
  };

  PublisherPart publisher_;
  IngestPart ingest_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace ddpo::testing
