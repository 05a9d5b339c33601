#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace ddpo {

// GroupNorm over [B,C,h,w], followed by SiLU where `silu` is set. On the CPU in float32 with a
// frozen weight and bias [C] a kernel over channels-last memory that does both
// (unet_kernels_benchmark compares it with LibTorch's); elsewhere LibTorch's. A row of the batch
// does not depend on the others. Differentiable in x, and in weight and bias where they require
// gradients.
at::Tensor GroupNormSilu(const at::Tensor& x, int64_t groups, const at::Tensor& weight,
                         const at::Tensor& bias, double eps, bool silu);

}  // namespace ddpo
