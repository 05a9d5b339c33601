#pragma once

#include <ATen/ATen.h>

namespace ddpo {

// A 3 × 3 convolution (stride 1, padding 1) on the CPU by Winograd's F(2×2, 3×3): 2.25 times fewer
// multiplications than the direct form, and as exact in float32, since its transforms only add.
// (F(4×4, 3×3) was tried: a fifth faster at 8 × 8 pixels, no faster at 4 × 4, four times the
// rounding error.) A. Lavin and S. Gray, "Fast
// Algorithms for Convolutional Neural Networks", arXiv 1509.09308. Takes and gives channels-last
// tensors; a row of the batch does not depend on the others. Differentiable in the input; the
// weight is taken as frozen.
class WinogradConv {
 public:
  // Whether it is worth it here: weight [O,C,3,3] float32 on the CPU, with enough channels to fill
  // the vector units and few enough for the transformed weights to stay in the cache.
  static bool Suits(const at::Tensor& weight);

  WinogradConv() = default;
  explicit WinogradConv(const at::Tensor& weight);

  bool defined() const { return forward_weight_.defined(); }

  // x [B,C,H,W] float32 with even H and W -> [B,O,H,W]. Adds `bias` in the same pass, [O] or, with
  // one for each row, [B,O], and `residual` [B,O,H,W], in which it is differentiable as well. Both
  // may be undefined.
  at::Tensor Forward(const at::Tensor& x, const at::Tensor& bias,
                     const at::Tensor& residual = {}) const;

 private:
  at::Tensor forward_weight_;   // [16,C,O]
  at::Tensor backward_weight_;  // [16,O,C], of the convolution that carries gradients back
};

}  // namespace ddpo
