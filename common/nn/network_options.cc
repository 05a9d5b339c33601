#include "common/nn/network_options.h"

#include <map>

#include "absl/strings/str_cat.h"

namespace ddpo {

absl::StatusOr<NetworkOptions> ParseNetworkOptions(const std::string& dtype,
                                                   const std::string& device) {
  static const auto& dtypes = *new std::map<std::string, at::ScalarType>{
      {"float32", at::kFloat}, {"float16", at::kHalf}, {"bfloat16", at::kBFloat16}};
  NetworkOptions options;
  const auto found = dtypes.find(dtype);
  if (found == dtypes.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype `", dtype, "`: expected float32, float16 or bfloat16"));
  }
  options.dtype = found->second;
  if (device == "cpu") return options;
  if (device != "cuda") {
    return absl::InvalidArgumentError(absl::StrCat("device `", device, "`: expected cpu or cuda"));
  }
#ifdef DDPO_CUDA
  options.device = at::kCUDA;
  return options;
#else
  return absl::InvalidArgumentError("device `cuda`: this build has no CUDA; build the cuda preset");
#endif
}

}  // namespace ddpo
