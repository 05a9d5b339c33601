#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace ddpo {

// GroupNorm over [B,C,h,w], followed by SiLU where `silu` is set, differentiable in x (weight and
// bias [C] are taken as frozen). On the CPU in float32 a kernel over channels-last memory that does
// both (unet_kernels_benchmark compares it with LibTorch's); elsewhere LibTorch's. A row of the
// batch does not depend on the others.
at::Tensor GroupNormSilu(const at::Tensor& x, int64_t groups, const at::Tensor& weight,
                         const at::Tensor& bias, double eps, bool silu);

}  // namespace ddpo
