#include "actor/policy_assembler.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

// A header that claims more is damaged: LoRA weights have some megabytes, a whole UNet some
// gigabytes.
constexpr int64_t kMaxPolicyBytes = int64_t{16} << 30;

}  // namespace

absl::StatusOr<std::optional<Policy>> PolicyAssembler::Feed(const cluster::v1::PolicyChunk& chunk) {
  if (chunk.has_header()) {
    DDPO_RETURN_IF_ERROR(Begin(chunk.header()));
    return TakeIfComplete();
  }
  if (!header_.has_value()) return absl::DataLossError("policy bytes came before their header");
  if (bytes_.size() + chunk.data().size() > static_cast<size_t>(header_->total_bytes())) {
    return absl::DataLossError(absl::StrCat("policy version ", header_->version(),
                                            " has more than the ", header_->total_bytes(),
                                            " bytes of its header"));
  }
  bytes_ += chunk.data();
  return TakeIfComplete();
}

absl::Status PolicyAssembler::Begin(const cluster::v1::PolicyHeader& header) {
  if (header_.has_value()) {
    return absl::DataLossError(absl::StrCat("policy version ", header_->version(), " ended after ",
                                            bytes_.size(), " of ", header_->total_bytes(),
                                            " bytes"));
  }
  if (header.total_bytes() < 0 || header.total_bytes() > kMaxPolicyBytes) {
    return absl::DataLossError(absl::StrCat("policy version ", header.version(), " claims ",
                                            header.total_bytes(), " bytes"));
  }
  header_ = header;
  bytes_.clear();
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Policy>> PolicyAssembler::TakeIfComplete() {
  if (bytes_.size() < static_cast<size_t>(header_->total_bytes())) return std::nullopt;
  Policy policy{.version = header_->version(), .bytes = std::move(bytes_), .sha256 = ""};
  policy.sha256 = Sha256Hex(policy.bytes);
  const std::string expected = header_->sha256();
  header_.reset();
  bytes_.clear();
  if (policy.sha256 != expected) {
    return absl::DataLossError(absl::StrCat("policy version ", policy.version, " has digest ",
                                            policy.sha256, ", expected ", expected));
  }
  return policy;
}

}  // namespace ddpo
