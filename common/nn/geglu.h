#pragma once

#include <ATen/ATen.h>

namespace ddpo {

// diffusers' GEGLU after its projection: x [N,2F] -> x[:, :F] · gelu(x[:, F:]), with the exact GELU
// (N. Shazeer, "GLU Variants Improve Transformer", arXiv 2002.05202). On the CPU in float32 one
// pass, with erf within 3e-7; elsewhere LibTorch's. Differentiable.
at::Tensor Geglu(const at::Tensor& x);

}  // namespace ddpo
