#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace ddpo {

// The CPU's matrix kernels sum in another order below sixteen rows, so that a row's bits would
// depend on how many others stand beside it.
inline constexpr int64_t kStableRows = 16;

// product(x) for a function that treats the rows of x [N,in] one by one; where N is small it is
// given rows of zeros besides, so that each row's bits are the same whatever N is.
template <typename Product>
at::Tensor WithStableRows(const at::Tensor& x, const Product& product) {
  const int64_t rows = x.size(0);
  if (rows >= kStableRows || !x.is_cpu()) return product(x);
  return product(at::constant_pad_nd(x, {0, 0, 0, kStableRows - rows})).narrow(0, 0, rows);
}

}  // namespace ddpo
