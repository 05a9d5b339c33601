#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace ddpo {

// The CPU's matrix kernels sum in another order below sixteen rows, so that a row's bits would
// depend on how many others stand beside it.
inline constexpr int64_t kStableRows = 16;

// x [N,in], with rows of zeros below it where N is small. A function that treats rows one by one
// then gives the same bits for each whatever N is; its result is to be narrowed to N rows again.
inline at::Tensor PadToStableRows(const at::Tensor& x) {
  const int64_t rows = x.size(0);
  if (rows >= kStableRows || !x.is_cpu()) return x;
  return at::constant_pad_nd(x, {0, 0, 0, kStableRows - rows});
}

}  // namespace ddpo
