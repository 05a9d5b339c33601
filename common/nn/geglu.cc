#include "common/nn/geglu.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "common/nn/simd.h"

namespace ddpo {
namespace {

// Rows that one task takes; only the speed depends on it.
constexpr int64_t kRowGrain = 64;

// Φ(x), the normal distribution, and exp(−x²/2). erf by formula 7.1.26 of Abramowitz and Stegun.
DDPO_SIMD_INLINE void Normal(const FloatVector& x, FloatVector& distribution, FloatVector& bell) {
  constexpr float kSqrtHalf = 0.70710678F;
  const FloatVector z = (x < 0.0F ? -x : x) * kSqrtHalf;
  Exp(-z * z, bell);
  const FloatVector t = 1.0F / (1.0F + 0.3275911F * z);
  FloatVector series = 1.061405429F * t - 1.453152027F;
  series = series * t + 1.421413741F;
  series = series * t - 0.284496736F;
  series = series * t + 0.254829592F;
  const FloatVector upper_tail = 0.5F * series * t * bell;  // 1 − Φ(|x|)
  distribution = x < 0.0F ? upper_tail : 1.0F - upper_tail;
}

DDPO_SIMD_INLINE void GegluRows(const float* x, int64_t rows, int64_t width, float* y) {
  for (int64_t row = 0; row < rows; ++row, x += 2 * width, y += width) {
    ForEachVector(width, [&](int64_t i, auto lanes) DDPO_SIMD_LAMBDA {
      FloatVector value, gate, distribution, bell;
      Load(x + i, value, lanes);
      Load(x + width + i, gate, lanes);
      Normal(gate, distribution, bell);
      Store(value * (gate * distribution), y + i, lanes);
    });
  }
}

// gelu'(x) = Φ(x) + x φ(x).
DDPO_SIMD_INLINE void GegluBackwardRows(const float* x, const float* dy, int64_t rows,
                                        int64_t width, float* dx) {
  constexpr float kInverseSqrt2Pi = 0.39894228F;
  for (int64_t row = 0; row < rows; ++row, x += 2 * width, dx += 2 * width, dy += width) {
    ForEachVector(width, [&](int64_t i, auto lanes) DDPO_SIMD_LAMBDA {
      FloatVector value, gate, gradient, distribution, bell;
      Load(x + i, value, lanes);
      Load(x + width + i, gate, lanes);
      Load(dy + i, gradient, lanes);
      Normal(gate, distribution, bell);
      Store(gradient * (gate * distribution), dx + i, lanes);
      Store(gradient * value * (distribution + gate * bell * kInverseSqrt2Pi), dx + width + i,
            lanes);
    });
  }
}

DDPO_SIMD_DISPATCH(GegluRows, (const float* x, int64_t rows, int64_t width, float* y),
                   (x, rows, width, y))
DDPO_SIMD_DISPATCH(GegluBackwardRows,
                   (const float* x, const float* dy, int64_t rows, int64_t width, float* dx),
                   (x, dy, rows, width, dx))

at::Tensor Apply(const at::Tensor& x) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const int64_t rows = x.size(0), width = x.size(1) / 2;
  at::Tensor y = at::empty({rows, width}, x.options());
  at::parallel_for(0, rows, kRowGrain, [&](int64_t begin, int64_t end) {
    DispatchGegluRows(x.const_data_ptr<float>() + begin * 2 * width, end - begin, width,
                      y.data_ptr<float>() + begin * width);
  });
  return y;
}

class GegluFunction : public torch::autograd::Function<GegluFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x) {
    context->save_for_backward({x});
    return Apply(x);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const at::Tensor x = context->get_saved_variables()[0];
    const at::Tensor dy = gradients[0].contiguous();
    const int64_t width = x.size(1) / 2;
    at::Tensor dx = at::empty_like(x);
    at::parallel_for(0, x.size(0), kRowGrain, [&](int64_t begin, int64_t end) {
      DispatchGegluBackwardRows(x.const_data_ptr<float>() + begin * 2 * width,
                                dy.const_data_ptr<float>() + begin * width, end - begin, width,
                                dx.data_ptr<float>() + begin * 2 * width);
    });
    return {dx};
  }
};

}  // namespace

at::Tensor Geglu(const at::Tensor& x) {
  if (!x.is_cpu() || x.scalar_type() != at::kFloat) {
    const std::vector<at::Tensor> halves = x.chunk(2, /*dim=*/1);
    return halves[0] * at::gelu(halves[1]);
  }
  const at::Tensor input = x.contiguous();
  if (at::GradMode::is_enabled() && input.requires_grad()) return GegluFunction::apply(input);
  return Apply(input);
}

}  // namespace ddpo
