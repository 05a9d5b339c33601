#include <algorithm>
#include <csignal>
#include <memory>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "learner/collective/collective.h"
#include "learner/collective/gloo_collective.h"
#include "learner/collective/key_value_store.h"
#include "learner/collective/single_rank.h"
#ifdef DDPO_CUDA
#include "learner/collective/nccl_collective.h"
#endif

namespace ddpo {
namespace {

constexpr char kGenerationKey[] = "generation";
// Of one call of the store, which answers in milliseconds.
constexpr absl::Duration kStorePatience = absl::Seconds(5);

// Where a rank waited for rank 0 and its store.
absl::Status NameRankZero(const absl::Status& status, const CollectiveOptions& options) {
  if (!absl::IsDeadlineExceeded(status)) return status;
  return absl::UnavailableError(
      absl::StrCat("rank 0, which serves the store at ", options.store_host, ":",
                   options.store_port, ", did not come within ",
                   absl::FormatDuration(options.meeting_timeout), ": ", status.message()));
}

// Rank 0 says the group's generation; the others hear it.
absl::Status ShareGeneration(KeyValueStore& store, CollectiveOptions& options) {
  if (options.rank == 0) return store.Set(kGenerationKey, absl::StrCat(options.generation));
  DDPO_ASSIGN_OR_RETURN(const std::string text, store.Get(kGenerationKey, options.meeting_timeout));
  if (absl::SimpleAtoi(text, &options.generation)) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("store: the generation is `", text, "`"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Collective>> CreateCollective(const CollectiveOptions& given) {
  CollectiveOptions options = given;
  if (options.size < 1 || options.rank < 0 || options.rank >= options.size) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", options.rank, " of ", options.size, " ranks: cannot be"));
  }
  if (options.size == 1) return std::make_unique<SingleRank>(options.generation);
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
  // Gloo and the store write to their peers' sockets in a way that raises it where the peer is
  // gone.
  std::signal(SIGPIPE, SIG_IGN);
  TcpKeyValueStoreOptions store_options;
  store_options.host = options.store_host;
  store_options.port = options.store_port;
  store_options.is_server = options.rank == 0;
  store_options.listen_host =
      options.store_listen_host.empty() ? options.store_host : options.store_listen_host;
  store_options.timeout = options.meeting_timeout;
  auto tcp_store = CreateTcpKeyValueStore(store_options);
  if (!tcp_store.ok()) return NameRankZero(tcp_store.status(), options);
  std::shared_ptr<KeyValueStore> store =
      CreateImpatientStore(*std::move(tcp_store), std::min(options.timeout, kStorePatience));
  DDPO_RETURN_IF_ERROR(NameRankZero(ShareGeneration(*store, options), options));
#ifdef DDPO_CUDA
  if (nccl) return CreateNcclCollective(options, std::move(store));
#endif
  return CreateGlooCollective(options, std::move(store));
}

}  // namespace ddpo
