#include "learner/collective/gloo_collective.h"

#include <gloo/allreduce.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <stdexcept>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/status_macros.h"
#include "learner/collective/store_gather.h"

namespace ddpo {
namespace {

// Gloo's view of our store. Gloo reports errors by exceptions.
class GlooStore : public gloo::rendezvous::Store {
 public:
  GlooStore(KeyValueStore* store, StoreGather* gather, std::string prefix, absl::Duration timeout)
      : store_(store), gather_(gather), prefix_(std::move(prefix)), timeout_(timeout) {}

  void set(const std::string& key, const std::vector<char>& data) override {
    const absl::Status status = store_->Set(prefix_ + key, std::string(data.begin(), data.end()));
    if (!status.ok()) throw std::runtime_error(status.ToString());
  }

  std::vector<char> get(const std::string& key) override {
    const std::string value = Await(key, timeout_);
    return {value.begin(), value.end()};
  }

  void wait(const std::vector<std::string>& keys) override {
    wait(keys, absl::ToChronoMilliseconds(timeout_));
  }

  void wait(const std::vector<std::string>& keys,
            const std::chrono::milliseconds& timeout) override {
    for (const std::string& key : keys) Await(key, absl::FromChrono(timeout));
  }

 private:
  std::string Await(const std::string& key, absl::Duration timeout) {
    auto value = gather_->Await(prefix_ + key, absl::Now() + timeout);
    if (!value.ok()) throw std::runtime_error(value.status().ToString());
    return *std::move(value);
  }

  KeyValueStore* const store_;
  StoreGather* const gather_;
  const std::string prefix_;
  const absl::Duration timeout_;
};

class GlooCollective : public Collective {
 public:
  GlooCollective(const CollectiveOptions& options, std::shared_ptr<KeyValueStore> store)
      : options_(options),
        prefix_(absl::StrCat("generation-", options.generation)),
        gather_(store, prefix_, options.rank, options.size, options.timeout),
        store_(std::move(store)) {}

  // Called once, before any other. All ranks meet in the store first, so that a missing one is
  // named, and then connect to each other. They meet again after that: a rank that closed its ends
  // at once would break connections that the others have not finished.
  absl::Status Connect() {
    DDPO_RETURN_IF_ERROR(gather_.Meet(options_.meeting_timeout));
    try {
      gloo::transport::tcp::attr attributes;
      attributes.hostname = options_.listen_host;
      auto device = gloo::transport::tcp::CreateDevice(attributes);
      auto context = std::make_shared<gloo::rendezvous::Context>(options_.rank, options_.size);
      context->setTimeout(absl::ToChronoMilliseconds(options_.timeout));
      GlooStore store(store_.get(), &gather_, prefix_ + "/gloo/", options_.timeout);
      context->connectFullMesh(store, device);
      context_ = std::move(context);
    } catch (const std::exception& error) {
      return gather_.Diagnose(-1, "connecting the ranks", error.what());
    }
    return gather_.AllGather("connected").status();
  }

  int rank() const override { return options_.rank; }
  int size() const override { return options_.size; }
  uint64_t generation() const override { return options_.generation; }

  absl::Status Leave() override { return gather_.Leave(); }

  void Abort(const std::string& why) override {
    aborted_ = true;
    gather_.Abort(why);
    if (context_ != nullptr) EndCalls();
  }

 protected:
  absl::Status DoAllReduceSum(const FlatBuffer& buffer) override {
    if (buffer.type != ElementType::kFloat32) {
      return absl::UnimplementedError("the Gloo backend adds float32 buffers only");
    }
    const int64_t call = calls_++;
    if (aborted_) return absl::CancelledError("the collective was aborted");
    try {
      // A rank that stops keeps its connections open.
      const StoreGather::Watch watch(&gather_, [this] { EndCalls(); });
      gloo::AllreduceOptions all_reduce(context_);
      all_reduce.setOutput(static_cast<float*>(buffer.data), buffer.elements);
      all_reduce.setReduceFunction(
          static_cast<void (*)(void*, const void*, const void*, size_t)>(&gloo::sum<float>));
      all_reduce.setAlgorithm(gloo::AllreduceOptions::Algorithm::RING);
      gloo::allreduce(all_reduce);
      return absl::OkStatus();
    } catch (const std::exception& error) {
      if (aborted_) return absl::CancelledError("the collective was aborted");
      // Closed connections wake the ranks that wait for this one.
      context_->closeConnections();
      return gather_.Diagnose(call, absl::StrCat("all-reduce ", call), error.what());
    }
  }

  absl::StatusOr<std::vector<std::string>> DoAllGather(const std::string& mine) override {
    return gather_.AllGather(mine);
  }

 private:
  // Ends the call that is waiting, and all to come. Closing the connections does not wake it, but
  // a wait that times out fails the sends and receives of its context that are pending.
  void EndCalls() {
    char nothing = 0;
    try {
      context_->createUnboundBuffer(&nothing, sizeof(nothing))
          ->waitRecv(nullptr, std::chrono::milliseconds(1));
    } catch (const std::exception&) {
    }
  }

  const CollectiveOptions options_;
  const std::string prefix_;
  StoreGather gather_;
  const std::shared_ptr<KeyValueStore> store_;
  std::shared_ptr<gloo::Context> context_;
  int64_t calls_ = 0;
  std::atomic<bool> aborted_{false};
};

}  // namespace

absl::StatusOr<std::unique_ptr<Collective>> CreateGlooCollective(
    const CollectiveOptions& options, std::shared_ptr<KeyValueStore> store) {
  auto collective = std::make_unique<GlooCollective>(options, std::move(store));
  if (absl::Status status = collective->Connect(); !status.ok()) return status;
  return collective;
}

}  // namespace ddpo
