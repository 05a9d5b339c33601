#include "common/nn/group_norm.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <vector>

#include "common/nn/simd.h"

namespace ddpo {
namespace {

struct Sizes {
  int64_t pixels;
  int64_t channels;
  int64_t groups;
  bool silu;

  int64_t group_channels() const { return channels / groups; }
};

// Sums of each group's channels, divided by its number of elements, spread over its channels.
DDPO_SIMD_INLINE void GroupMeans(const Sizes& sizes, float* channels) {
  const int64_t width = sizes.group_channels();
  for (int64_t g = 0; g < sizes.groups; ++g) {
    float sum = 0;
    for (int64_t c = 0; c < width; ++c) sum += channels[g * width + c];
    const float mean = sum / static_cast<float>(width * sizes.pixels);
    for (int64_t c = 0; c < width; ++c) channels[g * width + c] = mean;
  }
}

// z / (1 + exp(−z)) and its factor 1 / (1 + exp(−z)).
DDPO_SIMD_INLINE void Sigmoid(const FloatVector& z, FloatVector& sigmoid) {
  FloatVector e;
  Exp(-z, e);
  sigmoid = 1.0F / (1.0F + e);
}

// One image: x, y [pixels,C]; mean and rstd [C] are left for the backward pass (each group's value
// repeated for its channels).
DDPO_SIMD_INLINE void NormalizeImage(const float* x, const float* weight, const float* bias,
                                     float eps, const Sizes& sizes, float* mean, float* rstd,
                                     float* y) {
  const int64_t channels = sizes.channels;
  ForEachVector(channels, [&](int64_t c, auto lanes) DDPO_SIMD_LAMBDA {
    FloatVector sum{}, value;
    for (int64_t p = 0; p < sizes.pixels; ++p) {
      Load(x + p * channels + c, value, lanes);
      sum += value;
    }
    Store(sum, mean + c, lanes);
  });
  GroupMeans(sizes, mean);
  ForEachVector(channels, [&](int64_t c, auto lanes) DDPO_SIMD_LAMBDA {
    FloatVector sum{}, value, center;
    Load(mean + c, center, lanes);
    for (int64_t p = 0; p < sizes.pixels; ++p) {
      Load(x + p * channels + c, value, lanes);
      sum += (value - center) * (value - center);
    }
    Store(sum, rstd + c, lanes);
  });
  GroupMeans(sizes, rstd);
  for (int64_t c = 0; c < channels; ++c) rstd[c] = 1.0F / std::sqrt(rstd[c] + eps);
  ForEachVector(channels, [&](int64_t c, auto lanes) DDPO_SIMD_LAMBDA {
    FloatVector center, scale, shift, factor, value, sigmoid;
    Load(mean + c, center, lanes);
    Load(rstd + c, scale, lanes);
    Load(weight + c, factor, lanes);
    Load(bias + c, shift, lanes);
    scale *= factor;
    for (int64_t p = 0; p < sizes.pixels; ++p) {
      Load(x + p * channels + c, value, lanes);
      value = (value - center) * scale + shift;
      if (sizes.silu) {
        Sigmoid(value, sigmoid);
        value *= sigmoid;
      }
      Store(value, y + p * channels + c, lanes);
    }
  });
}

// dx from dy for one image. With x̂ = (x − mean) · rstd and g = dz · weight,
// dx = rstd · (g − mean over the group of g − x̂ · mean over the group of g x̂).
// means [2,C] is scratch.
DDPO_SIMD_INLINE void BackpropagateImage(const float* x, const float* dy, const float* weight,
                                         const float* bias, const float* mean, const float* rstd,
                                         const Sizes& sizes, float* means, float* dx) {
  const int64_t channels = sizes.channels;
  ForEachVector(channels, [&](int64_t c, auto lanes) DDPO_SIMD_LAMBDA {
    FloatVector center, scale, factor, shift, value, gradient, sigmoid;
    FloatVector sum{}, product_sum{};
    Load(mean + c, center, lanes);
    Load(rstd + c, scale, lanes);
    Load(weight + c, factor, lanes);
    Load(bias + c, shift, lanes);
    for (int64_t p = 0; p < sizes.pixels; ++p) {
      Load(x + p * channels + c, value, lanes);
      Load(dy + p * channels + c, gradient, lanes);
      value = (value - center) * scale;
      if (sizes.silu) {
        const FloatVector z = value * factor + shift;
        Sigmoid(z, sigmoid);
        gradient *= sigmoid * (1.0F + z * (1.0F - sigmoid));
      }
      gradient *= factor;
      sum += gradient;
      product_sum += gradient * value;
      Store(gradient, dx + p * channels + c, lanes);
    }
    Store(sum, means + c, lanes);
    Store(product_sum, means + channels + c, lanes);
  });
  GroupMeans(sizes, means);
  GroupMeans(sizes, means + channels);
  ForEachVector(channels, [&](int64_t c, auto lanes) DDPO_SIMD_LAMBDA {
    FloatVector center, scale, mean_g, mean_product, value, gradient;
    Load(mean + c, center, lanes);
    Load(rstd + c, scale, lanes);
    Load(means + c, mean_g, lanes);
    Load(means + channels + c, mean_product, lanes);
    for (int64_t p = 0; p < sizes.pixels; ++p) {
      Load(x + p * channels + c, value, lanes);
      Load(dx + p * channels + c, gradient, lanes);
      value = (value - center) * scale;
      gradient = scale * (gradient - mean_g - value * mean_product);
      Store(gradient, dx + p * channels + c, lanes);
    }
  });
}

DDPO_SIMD_DISPATCH(NormalizeImage,
                   (const float* x, const float* weight, const float* bias, float eps,
                    const Sizes& sizes, float* mean, float* rstd, float* y),
                   (x, weight, bias, eps, sizes, mean, rstd, y))
DDPO_SIMD_DISPATCH(BackpropagateImage,
                   (const float* x, const float* dy, const float* weight, const float* bias,
                    const float* mean, const float* rstd, const Sizes& sizes, float* means,
                    float* dx),
                   (x, dy, weight, bias, mean, rstd, sizes, means, dx))

Sizes SizesOf(const at::Tensor& x, int64_t groups, bool silu) {
  return {x.size(2) * x.size(3), x.size(1), groups, silu};
}

// x channels-last. statistics [2,B,C]: mean and 1/σ.
at::Tensor Normalize(const at::Tensor& x, int64_t groups, const at::Tensor& weight,
                     const at::Tensor& bias, double eps, bool silu, at::Tensor& statistics) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const Sizes sizes = SizesOf(x, groups, silu);
  const int64_t images = x.size(0), image = sizes.pixels * sizes.channels;
  at::Tensor y = at::empty_like(x);
  statistics = at::empty({2, images, sizes.channels}, x.options());
  at::parallel_for(0, images, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* mean = statistics.data_ptr<float>() + i * sizes.channels;
      DispatchNormalizeImage(x.const_data_ptr<float>() + i * image, weight.const_data_ptr<float>(),
                             bias.const_data_ptr<float>(), static_cast<float>(eps), sizes, mean,
                             mean + images * sizes.channels, y.data_ptr<float>() + i * image);
    }
  });
  return y;
}

class GroupNormSiluFunction : public torch::autograd::Function<GroupNormSiluFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            int64_t groups, const at::Tensor& weight, const at::Tensor& bias,
                            double eps, bool silu) {
    at::Tensor statistics;
    at::Tensor y = Normalize(x, groups, weight, bias, eps, silu, statistics);
    context->save_for_backward({x, weight, bias, statistics});
    context->saved_data["groups"] = groups;
    context->saved_data["silu"] = silu;
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &bias = saved[2], &statistics = saved[3];
    const Sizes sizes =
        SizesOf(x, context->saved_data["groups"].toInt(), context->saved_data["silu"].toBool());
    const at::Tensor dy = gradients[0].contiguous(at::MemoryFormat::ChannelsLast);
    at::Tensor dx = at::empty_like(x);
    const int64_t images = x.size(0), image = sizes.pixels * sizes.channels;
    at::parallel_for(0, images, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> means(2 * sizes.channels);
      for (int64_t i = begin; i < end; ++i) {
        const float* mean = statistics.const_data_ptr<float>() + i * sizes.channels;
        DispatchBackpropagateImage(
            x.const_data_ptr<float>() + i * image, dy.const_data_ptr<float>() + i * image,
            weight.const_data_ptr<float>(), bias.const_data_ptr<float>(), mean,
            mean + images * sizes.channels, sizes, means.data(), dx.data_ptr<float>() + i * image);
      }
    });
    return {dx, {}, {}, {}, {}, {}};
  }
};

}  // namespace

at::Tensor GroupNormSilu(const at::Tensor& x, int64_t groups, const at::Tensor& weight,
                         const at::Tensor& bias, double eps, bool silu) {
  if (!x.is_cpu() || x.scalar_type() != at::kFloat || weight.requires_grad()) {
    const at::Tensor y = at::group_norm(x, groups, weight, bias, eps);
    return silu ? at::silu(y) : y;
  }
  const at::Tensor input = x.contiguous(at::MemoryFormat::ChannelsLast);
  if (at::GradMode::is_enabled() && input.requires_grad()) {
    return GroupNormSiluFunction::apply(input, groups, weight, bias, eps, silu);
  }
  at::Tensor statistics;
  return Normalize(input, groups, weight, bias, eps, silu, statistics);
}

}  // namespace ddpo
