#include "common/nn/weights.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

// At most this many left-over keys are listed.
constexpr size_t kListed = 5;

std::string ShapeText(at::IntArrayRef shape) {
  return absl::StrCat("[", absl::StrJoin(shape.begin(), shape.end(), ","), "]");
}

}  // namespace

absl::StatusOr<WeightLoader> WeightLoader::Open(const std::string& dir,
                                                const NetworkOptions& options) {
  for (const char* stem : {"diffusion_pytorch_model", "model"}) {
    for (const char* ending : {".safetensors", ".safetensors.index.json"}) {
      const std::string path = JoinPath(dir, absl::StrCat(stem, ending));
      if (!FileSystem::Real()->Exists(path)) continue;
      DDPO_ASSIGN_OR_RETURN(SafetensorsContents contents, ReadSafetensors(path));
      return WeightLoader(path, std::move(contents.tensors), options);
    }
  }
  return absl::NotFoundError(absl::StrCat(
      dir,
      ": no weights; expected diffusion_pytorch_model.safetensors or model.safetensors, or "
      "the index of sharded ones"));
}

absl::StatusOr<at::Tensor> WeightLoader::Take(const std::string& key, at::IntArrayRef shape) {
  const auto found = contents_.find(key);
  if (found == contents_.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": tensor ", key, " ", ShapeText(shape), " is missing"));
  }
  const at::Tensor& tensor = found->second;
  if (tensor.sizes() != shape) {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": tensor ", key, " has shape ",
                                                   ShapeText(tensor.sizes()), ", expected ",
                                                   ShapeText(shape)));
  }
  if (!at::isFloatingType(tensor.scalar_type())) {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": tensor ", key, " has type ",
                                                   c10::toString(tensor.scalar_type()),
                                                   ", expected floating-point numbers"));
  }
  taken_.insert(key);
  at::Tensor taken = tensor.to(options_.device, options_.dtype);
  if (record_places_) places_[key] = {taken, 0, shape.vec()};
  return taken;
}

void WeightLoader::Keep(const std::string& key, const at::Tensor& tensor, int64_t first_row) {
  if (!record_places_) return;
  Place& place = places_.at(key);
  place.tensor = tensor;
  place.first_row = first_row;
}

bool WeightLoader::ContainsPrefix(const std::string& prefix) const {
  const auto found = contents_.lower_bound(prefix);
  return found != contents_.end() && absl::StartsWith(found->first, prefix);
}

void WeightLoader::RenameEnding(const std::string& from, const std::string& to) {
  NamedTensors renamed;
  for (auto& [key, tensor] : contents_) {
    const std::string stem = key.substr(0, key.size() - std::min(key.size(), from.size()));
    renamed[absl::EndsWith(key, from) ? stem + to : key] = std::move(tensor);
  }
  contents_ = std::move(renamed);
}

void WeightLoader::Ignore(const std::string& prefix) {
  for (auto it = contents_.lower_bound(prefix);
       it != contents_.end() && absl::StartsWith(it->first, prefix); ++it) {
    taken_.insert(it->first);
  }
}

absl::Status WeightLoader::CheckAllTaken() const {
  std::vector<std::string> left;
  for (const auto& [key, tensor] : contents_) {
    if (!taken_.contains(key)) left.push_back(key);
  }
  if (left.empty()) return absl::OkStatus();
  const size_t more = left.size() > kListed ? left.size() - kListed : 0;
  left.resize(left.size() - more);
  return absl::InvalidArgumentError(absl::StrCat(
      path_, ": holds tensors that this network has no place for: ", absl::StrJoin(left, ", "),
      more > 0 ? absl::StrCat(" and ", more, " more") : ""));
}

}  // namespace ddpo
