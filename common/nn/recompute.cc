#include "common/nn/recompute.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include <utility>

namespace ddpo {
namespace {

struct Segment : torch::CustomClassHolder {
  std::function<at::Tensor(const std::vector<at::Tensor>&)> forward;
  size_t inputs = 0;
};

class RecomputeFunction : public torch::autograd::Function<RecomputeFunction> {
 public:
  // tensors: the segment's inputs, then its parameters.
  static at::Tensor forward(torch::autograd::AutogradContext* context, at::TensorList tensors,
                            const c10::intrusive_ptr<Segment>& segment) {
    context->save_for_backward(tensors.vec());
    context->saved_data["segment"] = c10::IValue::make_capsule(segment);
    return segment->forward(tensors.slice(0, segment->inputs).vec());
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto segment =
        c10::static_intrusive_pointer_cast<Segment>(context->saved_data["segment"].toCapsule());
    std::vector<at::Tensor> tensors = context->get_saved_variables();
    // Inputs become leaves of a graph of the segment's own; parameters are leaves already.
    for (size_t i = 0; i < segment->inputs; ++i) {
      tensors[i] = tensors[i].detach().requires_grad_(tensors[i].requires_grad());
    }
    const at::AutoGradMode with_gradients(true);
    const at::Tensor output =
        segment->forward({tensors.begin(), tensors.begin() + static_cast<long>(segment->inputs)});
    std::vector<at::Tensor> wanted;
    for (const at::Tensor& tensor : tensors) {
      if (tensor.requires_grad()) wanted.push_back(tensor);
    }
    const std::vector<at::Tensor> found =
        torch::autograd::grad({output}, wanted, {gradients[0]}, /*retain_graph=*/false,
                              /*create_graph=*/false, /*allow_unused=*/true);
    // One for each argument of `forward`, the segment itself included.
    std::vector<at::Tensor> result(tensors.size() + 1);
    auto next = found.begin();
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].requires_grad()) result[i] = *next++;
    }
    return result;
  }
};

}  // namespace

at::Tensor Recompute(const std::vector<at::Tensor>& inputs,
                     const std::vector<at::Tensor>& parameters,
                     std::function<at::Tensor(const std::vector<at::Tensor>&)> forward) {
  if (!at::GradMode::is_enabled()) return forward(inputs);
  const auto segment = c10::make_intrusive<Segment>();
  segment->forward = std::move(forward);
  segment->inputs = inputs.size();
  std::vector<at::Tensor> tensors = inputs;
  tensors.insert(tensors.end(), parameters.begin(), parameters.end());
  return RecomputeFunction::apply(at::TensorList(tensors), segment);
}

}  // namespace ddpo
