#include "learner/collective/nccl_collective.h"

#include <cuda_runtime.h>
#include <nccl.h>

#include <atomic>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/status_macros.h"
#include "learner/collective/store_gather.h"

namespace ddpo {
namespace {

constexpr absl::Duration kPoll = absl::Microseconds(200);

absl::Status CudaStatus(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(what, ": ", cudaGetErrorString(error)));
}

class NcclCollective : public Collective {
 public:
  NcclCollective(const CollectiveOptions& options, std::shared_ptr<KeyValueStore> store)
      : options_(options),
        prefix_(absl::StrCat("generation-", options.generation)),
        gather_(store, prefix_, options.rank, options.size, options.timeout),
        store_(std::move(store)) {}

  ~NcclCollective() override {
    // ncclCommAbort frees a communicator without waiting for the other ranks.
    if (communicator_ != nullptr) ncclCommAbort(communicator_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  absl::Status Connect() {
    DDPO_RETURN_IF_ERROR(gather_.Meet(options_.meeting_timeout));
    DDPO_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(options_.device_index), "cudaSetDevice"));
    DDPO_RETURN_IF_ERROR(
        CudaStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate"));
    DDPO_ASSIGN_OR_RETURN(const ncclUniqueId id, ShareUniqueId());
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    const ncclResult_t started =
        ncclCommInitRankConfig(&communicator_, options_.size, id, options_.rank, &config);
    if (started != ncclSuccess && started != ncclInProgress) {
      return gather_.Diagnose(-1, "starting NCCL", ncclGetErrorString(started));
    }
    return WaitForCommunicator(-1, "starting NCCL");
  }

  int rank() const override { return options_.rank; }
  int size() const override { return options_.size; }
  uint64_t generation() const override { return options_.generation; }

  absl::Status Leave() override { return gather_.Leave(); }

  void Abort(const std::string& why) override {
    aborted_ = true;
    gather_.Abort(why);
  }

 protected:
  absl::Status DoAllReduceSum(const FlatBuffer& buffer) override {
    const int64_t call = calls_++;
    const std::string what = absl::StrCat("all-reduce ", call);
    if (aborted_) return absl::CancelledError("the collective was aborted");
    // The buffer was written on the caller's stream.
    DDPO_RETURN_IF_ERROR(CudaStatus(cudaDeviceSynchronize(), "cudaDeviceSynchronize"));
    const ncclDataType_t type = buffer.type == ElementType::kFloat32 ? ncclFloat32 : ncclBfloat16;
    const ncclResult_t started = ncclAllReduce(buffer.data, buffer.data, buffer.elements, type,
                                               ncclSum, communicator_, stream_);
    if (started != ncclSuccess && started != ncclInProgress) {
      return Fail(call, what, ncclGetErrorString(started));
    }
    DDPO_RETURN_IF_ERROR(WaitForCommunicator(call, what));
    return WaitForStream(call, what);
  }

  absl::StatusOr<std::vector<std::string>> DoAllGather(const std::string& mine) override {
    return gather_.AllGather(mine);
  }

 private:
  absl::StatusOr<ncclUniqueId> ShareUniqueId() {
    const std::string key = prefix_ + "/nccl-id";
    ncclUniqueId id;
    if (options_.rank == 0) {
      if (const ncclResult_t result = ncclGetUniqueId(&id); result != ncclSuccess) {
        return absl::InternalError(absl::StrCat("ncclGetUniqueId: ", ncclGetErrorString(result)));
      }
      DDPO_RETURN_IF_ERROR(store_->Set(key, std::string(id.internal, sizeof(id.internal))));
      return id;
    }
    auto value = gather_.Await(key, absl::Now() + options_.timeout);
    if (absl::IsDeadlineExceeded(value.status())) {
      return absl::UnavailableError(absl::StrCat("rank 0 did not start NCCL within ",
                                                 absl::FormatDuration(options_.timeout)));
    }
    DDPO_ASSIGN_OR_RETURN(const std::string bytes, std::move(value));
    if (bytes.size() != sizeof(id.internal)) {
      return absl::InternalError(
          absl::StrCat(key, " has ", bytes.size(), " bytes, expected ", sizeof(id.internal)));
    }
    bytes.copy(id.internal, sizeof(id.internal));
    return id;
  }

  // Polls until the communicator's last non-blocking call is through.
  absl::Status WaitForCommunicator(int64_t call, const std::string& what) {
    const absl::Time deadline = absl::Now() + options_.timeout;
    while (true) {
      ncclResult_t state = ncclSuccess;
      ncclCommGetAsyncError(communicator_, &state);
      if (state == ncclSuccess) return absl::OkStatus();
      if (state != ncclInProgress) return Fail(call, what, ncclGetErrorString(state));
      DDPO_RETURN_IF_ERROR(MayWait(call, what, deadline));
      absl::SleepFor(kPoll);
    }
  }

  // Polls until the kernels have run, and watches for errors of the communicator meanwhile.
  absl::Status WaitForStream(int64_t call, const std::string& what) {
    const absl::Time deadline = absl::Now() + options_.timeout;
    while (true) {
      const cudaError_t done = cudaStreamQuery(stream_);
      if (done == cudaSuccess) return absl::OkStatus();
      if (done != cudaErrorNotReady) return Fail(call, what, cudaGetErrorString(done));
      ncclResult_t state = ncclSuccess;
      ncclCommGetAsyncError(communicator_, &state);
      if (state != ncclSuccess && state != ncclInProgress) {
        return Fail(call, what, ncclGetErrorString(state));
      }
      DDPO_RETURN_IF_ERROR(MayWait(call, what, deadline));
      absl::SleepFor(kPoll);
    }
  }

  // Whether there is still something to wait for: NCCL itself does not notice a rank that stops, or
  // that dies without closing its connections.
  absl::Status MayWait(int64_t call, const std::string& what, absl::Time deadline) {
    if (aborted_) return absl::CancelledError("the collective was aborted");
    if (!gather_.Lost().ok()) return Fail(call, what, "a rank is lost");
    if (absl::Now() > deadline) return Fail(call, what, "timeout");
    return absl::OkStatus();
  }

  absl::Status Fail(int64_t call, const std::string& what, const std::string& cause) {
    if (communicator_ != nullptr) ncclCommAbort(communicator_);
    communicator_ = nullptr;
    return gather_.Diagnose(call, what, cause);
  }

  const CollectiveOptions options_;
  const std::string prefix_;
  StoreGather gather_;
  const std::shared_ptr<KeyValueStore> store_;
  ncclComm_t communicator_ = nullptr;
  cudaStream_t stream_ = nullptr;
  int64_t calls_ = 0;
  std::atomic<bool> aborted_{false};
};

}  // namespace

absl::StatusOr<std::unique_ptr<Collective>> CreateNcclCollective(
    const CollectiveOptions& options, std::shared_ptr<KeyValueStore> store) {
  auto collective = std::make_unique<NcclCollective>(options, std::move(store));
  if (absl::Status status = collective->Connect(); !status.ok()) return status;
  return collective;
}

}  // namespace ddpo
