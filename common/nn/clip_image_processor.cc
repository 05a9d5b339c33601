#include "common/nn/clip_image_processor.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/nn/json_config.h"
#include "common/tensors/resize.h"

namespace ddpo {
namespace {

constexpr int64_t kMaxEdge = 1 << 14;
constexpr int64_t kMaxResizedPixels = 16 << 20;
constexpr int kBicubic = 3;  // of PIL.Image.Resampling
// CLIP's own, which transformers takes where the file says nothing.
constexpr std::array<double, 3> kMean = {0.48145466, 0.4578275, 0.40821073};
constexpr std::array<double, 3> kStd = {0.26862954, 0.26130258, 0.27577711};

// A number for all channels or one for each.
absl::StatusOr<std::array<double, 3>> ReadChannels(const JsonConfig& config, const std::string& key,
                                                   const std::array<double, 3>& fallback) {
  if (!config.Has(key)) return fallback;
  const nlohmann::json& value = config.json()[key];
  std::array<double, 3> channels{};
  if (value.is_number()) {
    channels.fill(value.get<double>());
    return channels;
  }
  const auto is_number = [](const nlohmann::json& item) { return item.is_number(); };
  if (!value.is_array() || value.size() != 3 ||
      !std::all_of(value.begin(), value.end(), is_number)) {
    return config.Error(key, "a number or a list of three");
  }
  std::copy(value.begin(), value.end(), channels.begin());
  return channels;
}

// What LlavaImageProcessor pads with; numpy wraps what is beyond a byte.
absl::StatusOr<std::array<uint8_t, 3>> ReadBackground(const JsonConfig& config) {
  DDPO_ASSIGN_OR_RETURN(const auto mean, ReadChannels(config, "image_mean", kMean));
  std::array<uint8_t, 3> background{};
  for (size_t channel = 0; channel < background.size(); ++channel) {
    if (!(mean[channel] >= 0 && mean[channel] <= 1)) {
      return config.Error("image_mean", "numbers in 0 … 1, with which do_pad fills");
    }
    background[channel] = static_cast<uint8_t>(mean[channel] * 255);
  }
  return background;
}

// transformers' numbers, bit by bit: rescaling in float64 rounded to float32, the rest in float32.
absl::StatusOr<std::array<std::array<float, 256>, 3>> ReadValues(const JsonConfig& config) {
  DDPO_ASSIGN_OR_RETURN(const bool rescale, config.Bool("do_rescale", true));
  DDPO_ASSIGN_OR_RETURN(const double factor, config.Number("rescale_factor", 1.0 / 255));
  DDPO_ASSIGN_OR_RETURN(const bool normalize, config.Bool("do_normalize", true));
  DDPO_ASSIGN_OR_RETURN(const auto mean, ReadChannels(config, "image_mean", kMean));
  DDPO_ASSIGN_OR_RETURN(const auto std, ReadChannels(config, "image_std", kStd));
  if (normalize && *std::min_element(std.begin(), std.end()) <= 0) {
    return config.Error("image_std", "numbers above 0");
  }
  std::array<std::array<float, 256>, 3> values{};
  for (size_t channel = 0; channel < values.size(); ++channel) {
    for (size_t byte = 0; byte < 256; ++byte) {
      auto value = static_cast<float>(rescale ? static_cast<double>(byte) * factor
                                              : static_cast<double>(byte));
      if (normalize) {
        value = (value - static_cast<float>(mean[channel])) / static_cast<float>(std[channel]);
      }
      values[channel][byte] = value;
    }
  }
  return values;
}

// Rounds down, also below 0.
int64_t Half(int64_t value) { return value >= 0 ? value / 2 : -((1 - value) / 2); }

}  // namespace

absl::StatusOr<ClipImageProcessor> ClipImageProcessor::Load(const std::string& dir) {
  DDPO_ASSIGN_OR_RETURN(const JsonConfig config,
                        JsonConfig::Read(JoinPath(dir, "preprocessor_config.json")));
  DDPO_RETURN_IF_ERROR(config.Require(
      "image_processor_type", {R"("CLIPImageProcessor")", R"("CLIPImageProcessorFast")",
                               R"("LlavaImageProcessor")", R"("LlavaImageProcessorFast")"}));
  const auto edge = [](const JsonConfig& object, const std::string& key, int64_t fallback) {
    return object.Int(key, fallback, 1, kMaxEdge);
  };
  const auto is_number = [&](const char* key) {
    return config.Has(key) && config.json()[key].is_number();
  };
  ClipImageProcessor processor;

  DDPO_ASSIGN_OR_RETURN(const std::string type, config.String("image_processor_type", ""));
  if (!type.starts_with("Llava")) DDPO_RETURN_IF_ERROR(config.Require("do_pad", {"false"}));
  DDPO_ASSIGN_OR_RETURN(processor.pad_to_square_, config.Bool("do_pad", false));
  if (processor.pad_to_square_) {
    DDPO_ASSIGN_OR_RETURN(processor.background_, ReadBackground(config));
  }
  DDPO_ASSIGN_OR_RETURN(processor.resize_, config.Bool("do_resize", true));
  if (is_number("size") || !config.Has("size")) {
    DDPO_ASSIGN_OR_RETURN(processor.shortest_edge_, edge(config, "size", 224));
  } else {
    DDPO_ASSIGN_OR_RETURN(const JsonConfig size, config.Object("size"));
    if (size.Has("shortest_edge") && !size.Has("longest_edge")) {
      DDPO_ASSIGN_OR_RETURN(processor.shortest_edge_, edge(size, "shortest_edge", 0));
    } else if (size.Has("height") && size.Has("width")) {
      DDPO_ASSIGN_OR_RETURN(processor.size_.height, edge(size, "height", 0));
      DDPO_ASSIGN_OR_RETURN(processor.size_.width, edge(size, "width", 0));
    } else {
      return config.Error("size", "a number, {shortest_edge} or {height, width}");
    }
  }
  DDPO_ASSIGN_OR_RETURN(const int64_t resample, config.Int("resample", kBicubic, 0, 5));
  if (processor.resize_ && resample != kBicubic) {
    return config.Error("resample", "3, which is Pillow's bicubic filter");
  }

  DDPO_ASSIGN_OR_RETURN(processor.center_crop_, config.Bool("do_center_crop", true));
  if (is_number("crop_size") || !config.Has("crop_size")) {
    DDPO_ASSIGN_OR_RETURN(processor.crop_.height, edge(config, "crop_size", 224));
    processor.crop_.width = processor.crop_.height;
  } else {
    DDPO_ASSIGN_OR_RETURN(const JsonConfig crop, config.Object("crop_size"));
    if (!crop.Has("height") || !crop.Has("width")) {
      return config.Error("crop_size", "a number or {height, width}");
    }
    DDPO_ASSIGN_OR_RETURN(processor.crop_.height, edge(crop, "height", 0));
    DDPO_ASSIGN_OR_RETURN(processor.crop_.width, edge(crop, "width", 0));
  }
  DDPO_ASSIGN_OR_RETURN(processor.values_, ReadValues(config));
  return processor;
}

ClipImageProcessor::Size ClipImageProcessor::OutputSize() const {
  if (center_crop_) return crop_;
  if (!resize_) return {};
  if (shortest_edge_ == 0) return size_;
  return pad_to_square_ ? Size{shortest_edge_, shortest_edge_} : Size{};
}

ClipImageProcessor::Size ClipImageProcessor::ResizedSize(const Image& image) const {
  if (!resize_) return {image.width, image.height};
  if (shortest_edge_ == 0) return size_;
  const auto [shorter, longer] = std::minmax(image.width, image.height);
  // transformers divides as Python does, in float64, and cuts the fraction off.
  const auto longest_edge = static_cast<int64_t>(
      static_cast<double>(shortest_edge_ * static_cast<int64_t>(longer)) / shorter);
  return image.width <= image.height ? Size{shortest_edge_, longest_edge}
                                     : Size{longest_edge, shortest_edge_};
}

// As high as wide, with the image in the middle.
Image ClipImageProcessor::PadToSquare(const Image& image) const {
  const int edge = std::max(image.width, image.height);
  const auto left = static_cast<size_t>((edge - image.width) / 2);
  const auto top = static_cast<size_t>((edge - image.height) / 2);
  const auto width = static_cast<size_t>(image.width);
  Image square{edge, edge, {}};
  square.rgb.resize(static_cast<size_t>(edge) * edge * 3);
  for (size_t i = 0; i < square.rgb.size(); ++i) square.rgb[i] = background_[i % 3];
  for (size_t y = 0; y < static_cast<size_t>(image.height); ++y) {
    std::copy_n(image.rgb.begin() + static_cast<std::ptrdiff_t>(y * width * 3), width * 3,
                square.rgb.begin() + static_cast<std::ptrdiff_t>(((top + y) * edge + left) * 3));
  }
  return square;
}

absl::StatusOr<at::Tensor> ClipImageProcessor::Process(const Image& image) const {
  if (image.width < 1 || image.height < 1 ||
      image.rgb.size() != static_cast<size_t>(image.width) * image.height * 3) {
    return absl::InvalidArgumentError(absl::StrCat("an image of ", image.width, " × ", image.height,
                                                   " pixels and ", image.rgb.size(), " bytes"));
  }
  if (pad_to_square_ && image.width != image.height) {
    const int64_t edge = std::max(image.width, image.height);
    if (edge * edge > kMaxResizedPixels) {
      return absl::InvalidArgumentError(absl::StrCat(
          "an image of ", image.width, " × ", image.height, " pixels would be padded to ", edge,
          " × ", edge, "; at most ", kMaxResizedPixels, " pixels are allowed"));
    }
    return ProcessPadded(PadToSquare(image));
  }
  return ProcessPadded(image);
}

absl::StatusOr<at::Tensor> ClipImageProcessor::ProcessPadded(const Image& image) const {
  const Size size = ResizedSize(image);
  if (size.width * size.height > kMaxResizedPixels) {
    return absl::InvalidArgumentError(absl::StrCat(
        "an image of ", image.width, " × ", image.height, " pixels would be resized to ",
        size.width, " × ", size.height, "; at most ", kMaxResizedPixels, " pixels are allowed"));
  }
  const Image resized =
      ResizeBicubic(image, static_cast<int>(size.width), static_cast<int>(size.height));
  const Size out = center_crop_ ? crop_ : size;
  const auto left = static_cast<int>(Half(size.width - out.width));
  const auto top = static_cast<int>(Half(size.height - out.height));
  const Image cropped = Crop(
      resized, {left, top, left + static_cast<int>(out.width), top + static_cast<int>(out.height)});
  at::Tensor pixels = at::empty({3, out.height, out.width}, at::kFloat);
  float* planes = pixels.mutable_data_ptr<float>();
  const int64_t area = out.height * out.width;
  for (int64_t i = 0; i < area; ++i) {
    for (int64_t channel = 0; channel < 3; ++channel) {
      planes[channel * area + i] = values_[channel][cropped.rgb[i * 3 + channel]];
    }
  }
  return pixels;
}

absl::StatusOr<at::Tensor> ClipImageProcessor::Process(absl::Span<const Image> images) const {
  std::vector<at::Tensor> pixels;
  for (const Image& image : images) {
    DDPO_ASSIGN_OR_RETURN(pixels.emplace_back(), Process(image));
    if (pixels.back().sizes() != pixels.front().sizes()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "images of ", pixels.front().size(2), " × ", pixels.front().size(1), " and ",
          pixels.back().size(2), " × ", pixels.back().size(1),
          " pixels after processing can't go into one batch; do_center_crop makes them equal"));
    }
  }
  if (pixels.empty()) return absl::InvalidArgumentError("no images");
  return at::stack(pixels);
}

}  // namespace ddpo
