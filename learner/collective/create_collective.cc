#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "learner/collective/collective.h"
#include "learner/collective/gloo_collective.h"
#include "learner/collective/key_value_store.h"
#ifdef DDPO_CUDA
#include "learner/collective/nccl_collective.h"
#endif

namespace ddpo {
namespace {

// A group of one rank has nobody to wait for.
class SingleRank : public Collective {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  absl::Status AllReduceSum(const FlatBuffer&) override { return absl::OkStatus(); }
  absl::StatusOr<std::vector<std::string>> AllGather(const std::string& mine) override {
    return std::vector<std::string>{mine};
  }
  void Abort() override {}
};

}  // namespace

absl::StatusOr<std::unique_ptr<Collective>> CreateCollective(const CollectiveOptions& options) {
  if (options.size < 1 || options.rank < 0 || options.rank >= options.size) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", options.rank, " of ", options.size, " ranks: cannot be"));
  }
  if (options.size == 1) return std::make_unique<SingleRank>();
  const bool nccl = options.backend == "nccl";
  if (!nccl && options.backend != "gloo") {
    return absl::InvalidArgumentError(
        absl::StrCat("collective backend `", options.backend, "`: expected gloo or nccl"));
  }
#ifndef DDPO_CUDA
  if (nccl) {
    return absl::UnimplementedError("this build has no NCCL: build the cuda preset, or use gloo");
  }
#endif
  TcpKeyValueStoreOptions store_options;
  store_options.host = options.store_host;
  store_options.port = options.store_port;
  store_options.is_server = options.rank == 0;
  store_options.timeout = options.timeout;
  DDPO_ASSIGN_OR_RETURN(std::shared_ptr<KeyValueStore> store,
                        CreateTcpKeyValueStore(store_options));
#ifdef DDPO_CUDA
  if (nccl) return CreateNcclCollective(options, std::move(store));
#endif
  return CreateGlooCollective(options, std::move(store));
}

}  // namespace ddpo
