#include "common/nn/winograd.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "common/nn/simd.h"
#include "common/nn/stable_rows.h"

namespace ddpo {
namespace {

constexpr int64_t kTile = 2;   // side of an output tile
constexpr int64_t kPatch = 4;  // side of the input patch under it
constexpr int64_t kProducts = kPatch * kPatch;
// Bytes of transformed input that a block of images may take, so that it, the products and the
// weights share the second-level cache.
constexpr int64_t kBlockBytes = 512 * 1024;
constexpr int64_t kMinChannels = 16;
constexpr int64_t kMaxWeightElements = 256 * 256;

struct Geometry {
  int64_t height;
  int64_t width;
  int64_t in_channels;
  int64_t out_channels;

  int64_t tiles() const { return height / kTile * (width / kTile); }
};

// Bᵀ d of four values, `step` apart.
DDPO_SIMD_INLINE void InputLine(const FloatVector* d, int64_t step, FloatVector* v) {
  v[0] = d[0] - d[2 * step];
  v[step] = d[step] + d[2 * step];
  v[2 * step] = d[2 * step] - d[step];
  v[3 * step] = d[step] - d[3 * step];
}

// Aᵀ m of four values, `step` apart, to two, `out_step` apart.
DDPO_SIMD_INLINE void OutputLine(const FloatVector* m, int64_t step, FloatVector* y,
                                 int64_t out_step) {
  y[0] = m[0] + m[step] + m[2 * step];
  y[out_step] = m[step] - m[2 * step] - m[3 * step];
}

// V = Bᵀ d B (eq. 8 of the paper) of one tile for the channels from `channel` on. `patch` points at
// the patch's pixels, `v` at the first of kProducts values, `stride` apart.
template <typename Lanes>
DDPO_SIMD_INLINE void TransformInput(const std::array<const float*, kProducts>& patch,
                                     int64_t channel, Lanes lanes, int64_t stride, float* v) {
  FloatVector d[kProducts], t[kProducts];
  for (int64_t i = 0; i < kProducts; ++i) Load(patch[i] + channel, d[i], lanes);
  for (int64_t i = 0; i < kPatch; ++i) InputLine(d + i, kPatch, t + i);
  for (int64_t i = 0; i < kPatch; ++i) InputLine(t + i * kPatch, 1, d + i * kPatch);
  for (int64_t i = 0; i < kProducts; ++i) Store(d[i], v + i * stride, lanes);
}

// Y = Aᵀ m A + bias + residual: a tile's pixels from its kProducts products, `stride` apart. Pixel
// i begins `pixels[i]` floats into `out` and into `residual`, which may be null.
template <typename Lanes>
DDPO_SIMD_INLINE void TransformOutput(const float* m, int64_t stride, const float* bias,
                                      const float* residual, int64_t channel, Lanes lanes,
                                      const std::array<int64_t, kTile * kTile>& pixels,
                                      float* out) {
  FloatVector p[kProducts], t[kTile * kPatch], y[kTile], b, r;
  for (int64_t i = 0; i < kProducts; ++i) Load(m + i * stride, p[i], lanes);
  for (int64_t i = 0; i < kPatch; ++i) OutputLine(p + i, kPatch, t + i, kPatch);
  Load(bias + channel, b, lanes);
  for (int64_t row = 0; row < kTile; ++row) {
    OutputLine(t + row * kPatch, 1, y, 1);
    for (int64_t i = 0; i < kTile; ++i) {
      const int64_t pixel = pixels[row * kTile + i] + channel;
      y[i] += b;
      if (residual != nullptr) {
        Load(residual + pixel, r, lanes);
        y[i] += r;
      }
      Store(y[i], out + pixel, lanes);
    }
  }
}

// x: an image [H,W,C]; v: [16,T,C] of its block, at the image's first tile; zeros: C of them.
DDPO_SIMD_INLINE void TransformImage(const float* x, const Geometry& g, const float* zeros,
                                     int64_t stride, float* v) {
  std::array<const float*, kProducts> patch;
  for (int64_t y = 0; y < g.height; y += kTile) {
    for (int64_t col = 0; col < g.width; col += kTile) {
      for (int64_t i = 0; i < kProducts; ++i) {
        const int64_t row_at = y - 1 + i / kPatch;
        const int64_t col_at = col - 1 + i % kPatch;
        const bool inside = row_at >= 0 && row_at < g.height && col_at >= 0 && col_at < g.width;
        patch[i] = inside ? x + (row_at * g.width + col_at) * g.in_channels : zeros;
      }
      ForEachVector(g.in_channels, [&](int64_t c, auto lanes) DDPO_SIMD_LAMBDA {
        TransformInput(patch, c, lanes, stride, v + c);
      });
      v += g.in_channels;
    }
  }
}

// m: [16,T,O] of the image's block, at its first tile; out, residual: an image [H,W,O].
DDPO_SIMD_INLINE void GatherImage(const float* m, const Geometry& g, int64_t stride,
                                  const float* bias, const float* residual, float* out) {
  for (int64_t y = 0; y < g.height; y += kTile) {
    for (int64_t col = 0; col < g.width; col += kTile) {
      std::array<int64_t, kTile * kTile> pixels;
      for (int64_t i = 0; i < kTile * kTile; ++i) {
        pixels[i] = ((y + i / kTile) * g.width + col + i % kTile) * g.out_channels;
      }
      ForEachVector(g.out_channels, [&](int64_t c, auto lanes) DDPO_SIMD_LAMBDA {
        TransformOutput(m + c, stride, bias, residual, c, lanes, pixels, out);
      });
      m += g.out_channels;
    }
  }
}

DDPO_SIMD_DISPATCH(TransformImage,
                   (const float* x, const Geometry& g, const float* zeros, int64_t stride,
                    float* v),
                   (x, g, zeros, stride, v))
DDPO_SIMD_DISPATCH(GatherImage,
                   (const float* m, const Geometry& g, int64_t stride, const float* bias,
                    const float* residual, float* out),
                   (m, g, stride, bias, residual, out))

// x [B,C,H,W] and residual [B,O,H,W] or undefined channels-last, weight [16,C,O], bias [O], [B,O]
// or undefined.
at::Tensor Convolve(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                    const at::Tensor& residual) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const Geometry g{x.size(2), x.size(3), x.size(1), weight.size(2)};
  const int64_t images = x.size(0), out_size = g.height * g.width * g.out_channels;
  at::Tensor y = at::empty({images, g.out_channels, g.height, g.width}, x.options(),
                           at::MemoryFormat::ChannelsLast);
  const at::Tensor zeros = at::zeros({std::max(g.in_channels, g.out_channels)}, x.options());
  const float* bias_data = (bias.defined() ? bias : zeros).const_data_ptr<float>();
  const int64_t bias_step = bias.defined() && bias.dim() == 2 ? g.out_channels : 0;
  const float* residual_data = residual.defined() ? residual.const_data_ptr<float>() : nullptr;
  const int64_t image_bytes = kProducts * g.tiles() * std::max(g.in_channels, g.out_channels) * 4;
  const int64_t block = std::max<int64_t>(1, kBlockBytes / image_bytes);
  const int64_t blocks = (images + block - 1) / block;

  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    at::Tensor v, m;
    for (int64_t index = begin; index < end; ++index) {
      const int64_t first = index * block;
      const int64_t count = std::min(block, images - first);
      const int64_t tiles = count * g.tiles();
      const int64_t rows = std::max(tiles, kStableRows);
      if (!v.defined() || v.size(1) != rows) {
        v = rows == tiles ? at::empty({kProducts, rows, g.in_channels}, x.options())
                          : at::zeros({kProducts, rows, g.in_channels}, x.options());
        m = at::empty({kProducts, rows, g.out_channels}, x.options());
      }
      for (int64_t i = 0; i < count; ++i) {
        DispatchTransformImage(
            x.const_data_ptr<float>() + (first + i) * g.height * g.width * g.in_channels, g,
            zeros.const_data_ptr<float>(), rows * g.in_channels,
            v.data_ptr<float>() + i * g.tiles() * g.in_channels);
      }
      at::bmm_out(m, v, weight);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t offset = (first + i) * out_size;
        DispatchGatherImage(m.const_data_ptr<float>() + i * g.tiles() * g.out_channels, g,
                            rows * g.out_channels, bias_data + (first + i) * bias_step,
                            residual_data == nullptr ? nullptr : residual_data + offset,
                            y.data_ptr<float>() + offset);
      }
    }
  });
  return y;
}

// U = G g Gᵀ for each pair of channels; weight [O,C,3,3] -> [16,C,O].
at::Tensor TransformWeight(const at::Tensor& weight) {
  const at::Tensor g =
      at::tensor({1.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5, -0.5, 0.5, 0.0, 0.0, 1.0}, at::kDouble)
          .view({kPatch, 3});
  const at::Tensor u = at::matmul(at::matmul(g, weight.to(at::kDouble)), g.t());  // [O,C,4,4]
  return u.permute({2, 3, 1, 0})
      .reshape({kProducts, weight.size(1), weight.size(0)})
      .to(at::kFloat)
      .contiguous();
}

class WinogradFunction : public torch::autograd::Function<WinogradFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const std::optional<at::Tensor>& residual,
                            const at::Tensor& forward_weight, const at::Tensor& backward_weight,
                            const at::Tensor& bias) {
    context->saved_data["backward_weight"] = backward_weight;
    return Convolve(x, forward_weight, bias, residual.value_or(at::Tensor()));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const at::Tensor gradient = gradients[0].contiguous(at::MemoryFormat::ChannelsLast);
    at::Tensor dx;
    if (context->needs_input_grad(0)) {
      dx = Convolve(gradient, context->saved_data["backward_weight"].toTensor(), {}, {});
    }
    return {dx, context->needs_input_grad(1) ? gradient : at::Tensor(), {}, {}, {}};
  }
};

}  // namespace

bool WinogradConv::Suits(const at::Tensor& weight) {
  return weight.device().is_cpu() && weight.scalar_type() == at::kFloat && weight.dim() == 4 &&
         weight.size(2) == 3 && weight.size(3) == 3 &&
         std::min(weight.size(0), weight.size(1)) >= kMinChannels &&
         weight.size(0) * weight.size(1) <= kMaxWeightElements;
}

WinogradConv::WinogradConv(const at::Tensor& weight)
    : forward_weight_(TransformWeight(weight)),
      backward_weight_(TransformWeight(weight.flip({2, 3}).transpose(0, 1))) {}

at::Tensor WinogradConv::Forward(const at::Tensor& x, const at::Tensor& bias,
                                 const at::Tensor& residual) const {
  const at::Tensor input = x.contiguous(at::MemoryFormat::ChannelsLast);
  std::optional<at::Tensor> added;
  if (residual.defined()) added = residual.contiguous(at::MemoryFormat::ChannelsLast);
  if (at::GradMode::is_enabled() &&
      (input.requires_grad() || (added.has_value() && added->requires_grad()))) {
    return WinogradFunction::apply(
        input, added, forward_weight_, backward_weight_,
        bias.defined() ? bias : at::zeros({forward_weight_.size(2)}, input.options()));
  }
  return Convolve(input, forward_weight_, bias, added.value_or(at::Tensor()));
}

}  // namespace ddpo
