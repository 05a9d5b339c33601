#include "tools/parity/comparison.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace ddpo {
namespace {

TensorComparison CompareOne(const std::string& name, const at::Tensor& actual,
                            const at::Tensor& expected, const Tolerance& tolerance) {
  TensorComparison result;
  result.name = name;
  if (!actual.defined()) {
    result.problem = "this kind does not compute it";
    return result;
  }
  // A number may be stored as [] or as [1].
  const bool numbers = actual.numel() == 1 && expected.numel() == 1;
  if (!numbers && actual.sizes() != expected.sizes()) {
    result.problem = absl::StrCat("computed shape [", absl::StrJoin(actual.sizes(), ","),
                                  "], expected [", absl::StrJoin(expected.sizes(), ","), "]");
    return result;
  }
  // Float64 holds every float32 and every integer that fixtures carry exactly.
  const at::Tensor a = actual.detach().to(at::kCPU, at::kDouble).flatten();
  const at::Tensor b = expected.detach().to(at::kCPU, at::kDouble).flatten();
  if (a.numel() == 0) {
    result.matches = true;
    result.cosine = 1;
    return result;
  }
  const bool exact = !expected.is_floating_point();
  const double absolute = exact ? 0.0 : tolerance.absolute;
  const double relative = exact ? 0.0 : tolerance.relative;
  const at::Tensor both_finite = at::isfinite(a).logical_and(at::isfinite(b));
  const at::Tensor difference = (a - b).abs();
  const at::Tensor same = a.eq(b).logical_or(at::isnan(a).logical_and(at::isnan(b)));
  const at::Tensor within = difference.le(b.abs() * relative + absolute).logical_and(both_finite);
  result.matches = within.logical_or(same).all().item<bool>();
  result.max_absolute =
      at::where(same, at::zeros_like(difference), difference).max().item<double>();
  result.max_relative =
      at::where(same, at::zeros_like(difference), difference / b.abs()).max().item<double>();
  const double norms = a.norm().item<double>() * b.norm().item<double>();
  result.cosine = norms > 0 ? a.dot(b).item<double>() / norms : (result.matches ? 1.0 : 0.0);
  return result;
}

}  // namespace

std::vector<TensorComparison> CompareTensors(const NamedTensors& actual,
                                             const NamedTensors& expected,
                                             const Tolerance& tolerance) {
  std::vector<TensorComparison> results;
  for (const auto& [name, tensor] : expected) {
    auto found = actual.find(name);
    results.push_back(
        CompareOne(name, found == actual.end() ? at::Tensor() : found->second, tensor, tolerance));
  }
  return results;
}

}  // namespace ddpo
