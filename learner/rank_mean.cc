#include "learner/rank_mean.h"

#include "absl/strings/str_cat.h"
#include "common/base/kill_point.h"

namespace ddpo {

std::function<absl::Status(at::Tensor&)> RankMean(Collective* collective) {
  if (collective == nullptr || collective->size() == 1) return nullptr;
  return [collective](at::Tensor& tensor) -> absl::Status {
    if (tensor.scalar_type() != at::kFloat || !tensor.is_contiguous()) {
      return absl::InvalidArgumentError(absl::StrCat("the ranks' mean of a tensor of ",
                                                     c10::toString(tensor.scalar_type()),
                                                     ", expected a contiguous one of float32"));
    }
    KillPoint("update.all_reduce");
    const absl::Status added = collective->AllReduceSum(
        {.data = tensor.data_ptr<float>(), .elements = static_cast<size_t>(tensor.numel())});
    if (added.ok()) tensor.div_(collective->size());
    return added;
  };
}

}  // namespace ddpo
