#include "common/nn/aesthetic_head.h"

#include <fstream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/tensors/safetensors.h"
#include "common/tensors/torch_zip.h"

namespace ddpo {
namespace {

// Dropout takes the numbers between.
constexpr std::array<int, 5> kIndices = {0, 2, 4, 6, 7};

absl::StatusOr<NamedTensors> ReadTensors(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  char magic[4] = {};
  file.read(magic, sizeof magic);
  if (file && std::string(magic, 2) == "PK") return ReadTorchZip(path);
  // An archive of PyTorch before 1.6 begins with a pickle.
  if (file && magic[0] == '\x80' && magic[2] == '\x8a') {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": a file of PyTorch before 1.6; save it anew with a later one, or as safetensors"));
  }
  DDPO_ASSIGN_OR_RETURN(SafetensorsContents contents, ReadSafetensors(path));
  return std::move(contents.tensors);
}

std::string ShapeText(at::IntArrayRef shape) {
  return absl::StrCat("[", absl::StrJoin(shape.begin(), shape.end(), ","), "]");
}

}  // namespace

absl::StatusOr<AestheticHead> AestheticHead::Load(const std::string& path, int64_t features,
                                                  at::Device device) {
  DDPO_ASSIGN_OR_RETURN(NamedTensors tensors, ReadTensors(path));
  // Takes a tensor of the expected dimensions; −1 stands for any size.
  const auto take = [&](const std::string& key,
                        const std::vector<int64_t>& shape) -> absl::StatusOr<at::Tensor> {
    const std::string wanted =
        absl::StrCat("[",
                     absl::StrJoin(shape, ",",
                                   [](std::string* out, int64_t size) {
                                     absl::StrAppend(out, size < 0 ? "any" : absl::StrCat(size));
                                   }),
                     "]");
    const auto found = tensors.find(key);
    if (found == tensors.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor ", key, " ", wanted, " is missing"));
    }
    const at::Tensor tensor = found->second;
    bool fits = tensor.dim() == static_cast<int64_t>(shape.size()) && tensor.numel() > 0;
    for (size_t i = 0; fits && i < shape.size(); ++i) {
      fits = shape[i] < 0 || tensor.size(static_cast<int64_t>(i)) == shape[i];
    }
    if (!fits || !tensor.is_floating_point()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor ", key, " is ", c10::toString(tensor.scalar_type()), " ",
                       ShapeText(tensor.sizes()), ", expected floating-point numbers ", wanted));
    }
    tensors.erase(found);
    return tensor.to(at::TensorOptions(at::kFloat).device(device));
  };
  AestheticHead head;
  int64_t in = features;
  for (size_t i = 0; i < kIndices.size(); ++i) {
    const std::string prefix = absl::StrCat("layers.", kIndices[i]);
    const int64_t out = i + 1 == kIndices.size() ? 1 : -1;
    DDPO_ASSIGN_OR_RETURN(head.layers_[i].weight, take(prefix + ".weight", {out, in}));
    in = head.layers_[i].weight.size(0);
    DDPO_ASSIGN_OR_RETURN(head.layers_[i].bias, take(prefix + ".bias", {in}));
  }
  if (!tensors.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": holds ", tensors.begin()->first,
                     ", for which the aesthetic head of layers.{0,2,4,6,7} has no place"));
  }
  return head;
}

at::Tensor AestheticHead::Score(const at::Tensor& image_embeds) const {
  const at::Tensor embeds = image_embeds.to(layers_[0].weight.options());
  at::Tensor x = embeds / at::linalg_vector_norm(embeds, 2, /*dim=*/-1, /*keepdim=*/true);
  for (const Layer& layer : layers_) x = at::linear(x, layer.weight, layer.bias);
  return x.squeeze(-1);
}

}  // namespace ddpo
