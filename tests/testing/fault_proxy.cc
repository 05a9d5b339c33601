#include "tests/testing/fault_proxy.h"

#include <grpcpp/impl/codegen/sync_stream.h>

#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/random.h"

namespace ddpo::testing {
namespace {

using grpc::ByteBuffer;
using UpstreamCall = grpc::ClientReaderWriter<ByteBuffer, ByteBuffer>;

const grpc::Status kInjected(grpc::StatusCode::UNAVAILABLE, "injected by the fault proxy");

}  // namespace

Fault DecideFault(const FaultPlan& plan, const std::string& method, int64_t call) {
  const uint64_t draw = DeriveSeed(plan.seed, method, static_cast<uint64_t>(call));
  const double place = static_cast<double>(draw >> 11) / static_cast<double>(1ull << 53);
  if (place < plan.fails_before) return Fault::kFailsBefore;
  if (place < plan.fails_before + plan.response_lost) return Fault::kResponseLost;
  if (place < plan.fails_before + plan.response_lost + plan.delayed) return Fault::kDelayed;
  return Fault::kNone;
}

// One call: a thread takes the client's messages to the server, another the server's to the client.
// Owns itself; gone once gRPC and both threads are done with it.
class FaultProxy::Call : public grpc::ServerGenericBidiReactor {
 public:
  Call(FaultProxy* proxy, grpc::GenericCallbackServerContext* context)
      : proxy_(proxy), method_(context->method()), fault_(proxy->Next(method_)) {
    context_.set_deadline(context->deadline());
    if (fault_ != Fault::kResponseLost) proxy_->Count(fault_);
    std::thread([this] { Run(); }).detach();
  }

  void OnReadDone(bool ok) override { Set(&read_, ok); }
  void OnWriteDone(bool ok) override { Set(&written_, ok); }
  void OnCancel() override { context_.TryCancel(); }
  void OnDone() override { Release(); }

 private:
  ~Call() override {
    absl::MutexLock lock(&proxy_->mutex_);
    --proxy_->open_calls_;
  }

  void Run() {
    if (fault_ == Fault::kFailsBefore) {
      Finish(kInjected);
      return Release();
    }
    if (fault_ == Fault::kDelayed) absl::SleepFor(proxy_->plan_.delay);
    const grpc::internal::RpcMethod method(method_.c_str(),
                                           grpc::internal::RpcMethod::BIDI_STREAMING);
    upstream_.reset(grpc::internal::ClientReaderWriterFactory<ByteBuffer, ByteBuffer>::Create(
        proxy_->upstream_.get(), method, &context_));
    std::thread requests([this] { CarryRequests(); });
    const grpc::Status status = CarryResponses();
    {
      // Ends a read that CarryRequests waits in; there is to be none after it.
      absl::MutexLock lock(&finish_mutex_);
      finished_ = true;
      Finish(status);
    }
    requests.join();
    Release();
  }

  void CarryRequests() {
    while (true) {
      ByteBuffer message;
      {
        absl::MutexLock lock(&finish_mutex_);
        if (finished_) return;
        StartRead(&message);
      }
      const bool ok = Take(&read_);
      absl::MutexLock lock(&upstream_mutex_);
      if (upstream_finished_) return;
      if (!ok) {
        upstream_->WritesDone();
        return;
      }
      if (!upstream_->Write(message)) return;
    }
  }

  // Returns how the call is to end.
  grpc::Status CarryResponses() {
    ByteBuffer message;
    bool lost = false, broken = false;
    while (!broken && upstream_->Read(&message)) {
      lost = fault_ == Fault::kResponseLost;
      if (!lost) StartWrite(&message);
      broken = lost || !Take(&written_);
    }
    if (lost) proxy_->Count(fault_);
    if (broken) context_.TryCancel();
    absl::MutexLock lock(&upstream_mutex_);
    upstream_finished_ = true;
    const grpc::Status status = upstream_->Finish();
    return lost ? kInjected : status;
  }

  void Set(std::optional<bool>* result, bool ok) {
    absl::MutexLock lock(&mutex_);
    *result = ok;
  }
  bool Take(std::optional<bool>* result) {
    absl::MutexLock lock(&mutex_);
    const auto there = [result] { return result->has_value(); };
    mutex_.Await(absl::Condition(&there));
    return *std::exchange(*result, std::nullopt);
  }
  // gRPC and the thread each call it once.
  void Release() {
    bool last = false;
    {
      absl::MutexLock lock(&mutex_);
      last = --users_ == 0;
    }
    if (last) delete this;
  }

  FaultProxy* const proxy_;
  const std::string method_;
  const Fault fault_;
  grpc::ClientContext context_;
  std::unique_ptr<UpstreamCall> upstream_;
  absl::Mutex finish_mutex_;
  bool finished_ ABSL_GUARDED_BY(finish_mutex_) = false;
  absl::Mutex upstream_mutex_;
  bool upstream_finished_ ABSL_GUARDED_BY(upstream_mutex_) = false;
  absl::Mutex mutex_;
  std::optional<bool> read_;     // guarded by mutex_
  std::optional<bool> written_;  // guarded by mutex_
  int users_ ABSL_GUARDED_BY(mutex_) = 2;
};

grpc::ServerGenericBidiReactor* FaultProxy::Service::CreateReactor(
    grpc::GenericCallbackServerContext* context) {
  return new Call(proxy_, context);
}

FaultProxy::FaultProxy(const std::string& upstream, const FaultPlan& plan)
    : plan_(plan), service_(this) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  upstream_ = grpc::CreateCustomChannel(upstream, grpc::InsecureChannelCredentials(), arguments);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.SetMaxReceiveMessageSize(-1);
  builder.RegisterCallbackGenericService(&service_);
  server_ = builder.BuildAndStart();
  address_ = absl::StrCat("127.0.0.1:", port);
}

FaultProxy::~FaultProxy() {
  server_->Shutdown(std::chrono::system_clock::now());
  const auto none_open = [this]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return open_calls_ == 0; };
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&none_open));
}

Fault FaultProxy::Next(const std::string& method) {
  absl::MutexLock lock(&mutex_);
  ++open_calls_;
  return DecideFault(plan_, method, calls_[method]++);
}

void FaultProxy::Count(Fault fault) {
  absl::MutexLock lock(&mutex_);
  ++faults_[fault];
}

std::map<Fault, int64_t> FaultProxy::faults() const {
  absl::MutexLock lock(&mutex_);
  return faults_;
}

}  // namespace ddpo::testing
