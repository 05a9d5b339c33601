#include "common/tensors/resize.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace ddpo {
namespace {

constexpr int kChannels = 3;
// Weights are integers with this many fractional bits: 8 bits of pixel and 2 of headroom remain.
constexpr int kPrecisionBits = 32 - 8 - 2;
constexpr double kBicubicSupport = 2.0;

double BicubicWeight(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

// How each output pixel of one axis is a weighted sum of input pixels.
struct AxisWeights {
  struct Window {
    int first = 0;
    std::vector<int32_t> weights;
  };
  std::vector<Window> windows;  // one for each output pixel
};

AxisWeights ComputeWeights(int input_size, int output_size) {
  const double scale = static_cast<double>(input_size) / output_size;
  const double filter_scale = std::max(scale, 1.0);
  const double support = kBicubicSupport * filter_scale;
  AxisWeights axis;
  axis.windows.resize(output_size);
  for (int output = 0; output < output_size; ++output) {
    const double center = (output + 0.5) * scale;
    const int first = std::max(static_cast<int>(center - support + 0.5), 0);
    const int end = std::min(static_cast<int>(center + support + 0.5), input_size);
    std::vector<double> exact(end - first);
    double sum = 0;
    for (int i = 0; i < end - first; ++i) {
      exact[i] = BicubicWeight((i + first - center + 0.5) * (1.0 / filter_scale));
      sum += exact[i];
    }
    AxisWeights::Window& window = axis.windows[output];
    window.first = first;
    window.weights.reserve(exact.size());
    for (double weight : exact) {
      if (sum != 0.0) weight /= sum;
      const double fixed = weight * (1 << kPrecisionBits);
      window.weights.push_back(static_cast<int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5));
    }
  }
  return axis;
}

uint8_t Clip8(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kPrecisionBits, 0, 255));
}

// Resamples one line. `stride` is the distance in bytes of two neighbours on it.
void ResampleLine(const AxisWeights& axis, const uint8_t* input, uint8_t* output, int stride) {
  for (const AxisWeights::Window& window : axis.windows) {
    for (int channel = 0; channel < kChannels; ++channel) {
      int32_t sum = 1 << (kPrecisionBits - 1);
      const uint8_t* pixel = input + static_cast<size_t>(window.first) * stride + channel;
      for (const int32_t weight : window.weights) {
        sum += *pixel * weight;
        pixel += stride;
      }
      output[channel] = Clip8(sum);
    }
    output += stride;
  }
}

Image ResampleRows(const Image& image, int width) {
  if (width == image.width) return image;
  Image result{width, image.height, {}};
  result.rgb.resize(static_cast<size_t>(width) * image.height * kChannels);
  const AxisWeights axis = ComputeWeights(image.width, width);
  for (int y = 0; y < image.height; ++y) {
    ResampleLine(axis, image.rgb.data() + static_cast<size_t>(y) * image.width * kChannels,
                 result.rgb.data() + static_cast<size_t>(y) * width * kChannels, kChannels);
  }
  return result;
}

Image ResampleColumns(const Image& image, int height) {
  if (height == image.height) return image;
  Image result{image.width, height, {}};
  result.rgb.resize(static_cast<size_t>(image.width) * height * kChannels);
  const AxisWeights axis = ComputeWeights(image.height, height);
  for (int x = 0; x < image.width; ++x) {
    ResampleLine(axis, image.rgb.data() + static_cast<size_t>(x) * kChannels,
                 result.rgb.data() + static_cast<size_t>(x) * kChannels, image.width * kChannels);
  }
  return result;
}

}  // namespace

Image ResizeBicubic(const Image& image, int width, int height) {
  // Each pass rounds to 8 bits, so their order shows. Since Pillow 13 columns come first where the
  // height shrinks by far more than the width.
  const int fewer_rows = image.height - height;
  const int fewer_columns = image.width - width;
  if (fewer_rows > 0 && fewer_rows > 2 * int64_t{fewer_columns}) {
    return ResampleRows(ResampleColumns(image, height), width);
  }
  return ResampleColumns(ResampleRows(image, width), height);
}

Image Crop(const Image& image, const CropBox& box) {
  Image result{box.right - box.left, box.bottom - box.top, {}};
  result.rgb.assign(static_cast<size_t>(result.width) * result.height * kChannels, 0);
  const int left = std::max(box.left, 0);
  const int right = std::min(box.right, image.width);
  for (int y = std::max(box.top, 0); y < std::min(box.bottom, image.height) && left < right; ++y) {
    const auto row =
        image.rgb.begin() + (static_cast<ptrdiff_t>(y) * image.width + left) * kChannels;
    std::copy(
        row, row + static_cast<ptrdiff_t>(right - left) * kChannels,
        result.rgb.begin() +
            (static_cast<ptrdiff_t>(y - box.top) * result.width + (left - box.left)) * kChannels);
  }
  return result;
}

}  // namespace ddpo
