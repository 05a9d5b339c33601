#include "common/nn/lora_linear.h"

#include <torch/csrc/autograd/custom_function.h>

#include <optional>

namespace ddpo {
namespace {

// Column block `index` of `count`.
at::Tensor Columns(const at::Tensor& matrix, int64_t index, int64_t count) {
  const int64_t width = matrix.size(1) / count;
  return matrix.narrow(1, index * width, width);
}

// Row block `index` of `count`.
at::Tensor Rows(const at::Tensor& matrix, int64_t index, int64_t count) {
  const int64_t height = matrix.size(0) / count;
  return matrix.narrow(0, index * height, height);
}

// A node of its own for autograd: the products with the small matrices go straight into the
// columns where they belong, which autograd's own nodes would copy.
class LoraLinearFunction : public torch::autograd::Function<LoraLinearFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                            const at::Tensor& down, const at::Tensor& up, double scale) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const int64_t layers = down.size(0) / up.size(1);
    at::Tensor y = at::linear(x, weight, bias);
    const at::Tensor inner = at::mm(x, down.t());
    for (int64_t i = 0; i < layers; ++i) {
      Columns(y, i, layers).addmm_(Columns(inner, i, layers), Rows(up, i, layers).t(), 1, scale);
    }
    context->save_for_backward({x, weight, down, up, inner});
    context->saved_data["scale"] = scale;
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &down = saved[2], &up = saved[3],
                     &inner = saved[4];
    const double scale = context->saved_data["scale"].toDouble();
    const int64_t layers = down.size(0) / up.size(1);
    const at::Tensor& dy = gradients[0];
    at::Tensor d_inner = at::empty_like(inner), d_up = at::empty_like(up);
    for (int64_t i = 0; i < layers; ++i) {
      const at::Tensor layer_dy = Columns(dy, i, layers);
      // β = 0: what stands in the outputs is not read.
      Columns(d_inner, i, layers).addmm_(layer_dy, Rows(up, i, layers), 0, scale);
      Rows(d_up, i, layers).addmm_(layer_dy.t(), Columns(inner, i, layers), 0, scale);
    }
    at::Tensor dx;
    if (context->needs_input_grad(0)) dx = at::mm(dy, weight).addmm_(d_inner, down);
    return {dx, {}, {}, at::mm(d_inner.t(), x), d_up, {}};
  }
};

}  // namespace

at::Tensor LoraLinear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      const at::Tensor& down, const at::Tensor& up, double scale) {
  if (x.scalar_type() == down.scalar_type()) {
    return LoraLinearFunction::apply(x, weight, bias.defined() ? std::optional(bias) : std::nullopt,
                                     down, up, scale);
  }
  const at::Tensor base = at::linear(x, weight, bias);
  const int64_t layers = down.size(0) / up.size(1);
  const at::Tensor inner = at::mm(x.to(down.scalar_type()), down.t());
  std::vector<at::Tensor> products;
  for (int64_t i = 0; i < layers; ++i) {
    products.push_back(at::mm(Columns(inner, i, layers), Rows(up, i, layers).t()));
  }
  return (base.to(down.scalar_type()) + scale * at::cat(products, 1)).to(base.scalar_type());
}

}  // namespace ddpo
