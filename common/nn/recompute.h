#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <vector>

namespace ddpo {

// forward(inputs), differentiable as if called directly, but only the inputs are kept for the
// backward pass, which calls `forward` again ("Training Deep Nets with Sublinear Memory Cost",
// arXiv 1604.06174). The gradients have the same bits where `forward` gives the same bits each time
// and uses no tensor more than twice.
// `parameters` are the leaves that `forward` uses besides its inputs and that may need gradients.
// `forward` is kept until the graph is gone: what it refers to has to live as long.
at::Tensor Recompute(const std::vector<at::Tensor>& inputs,
                     const std::vector<at::Tensor>& parameters,
                     std::function<at::Tensor(const std::vector<at::Tensor>&)> forward);

}  // namespace ddpo
