#pragma once

#include <ATen/ATen.h>

namespace ddpo {

// y = W x + b + scale · B (A x) for several layers of the same input at once, as peft computes it:
// x [N,in], weight [layers · out, in], bias [layers · out] or undefined, the layers' A one below
// the other in `down` [layers · rank, in], their B in `up` [layers · out, rank]; -> [N, layers ·
// out]. The LoRA computes in float32 whatever x and the weight are held in. Differentiable in x,
// `down` and `up`; weight and bias are taken as frozen.
at::Tensor LoraLinear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      const at::Tensor& down, const at::Tensor& up, double scale);

}  // namespace ddpo
