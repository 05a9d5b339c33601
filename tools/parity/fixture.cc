#include "tools/parity/fixture.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

std::string ShapeText(const at::Tensor& tensor) {
  return absl::StrCat("[", absl::StrJoin(tensor.sizes(), ","), "]");
}

}  // namespace

absl::StatusOr<Fixture> Fixture::Read(const std::string& path) {
  DDPO_ASSIGN_OR_RETURN(SafetensorsContents contents, ReadSafetensors(path));
  Fixture fixture;
  fixture.path_ = path;
  auto kind = contents.metadata.find("kind");
  if (kind == contents.metadata.end()) {
    return fixture.Error("__metadata__ has no `kind`, so this is not a parity fixture");
  }
  fixture.kind_ = kind->second;
  auto params = contents.metadata.find("params");
  if (params == contents.metadata.end()) return fixture.Error("__metadata__ has no `params`");
  fixture.params_ = nlohmann::json::parse(params->second, nullptr, /*allow_exceptions=*/false);
  if (!fixture.params_.is_object()) return fixture.Error("`params` is not a JSON object");
  for (auto& [name, tensor] : contents.tensors) {
    if (absl::StartsWith(name, "in.lora.")) {
      fixture.lora_[name.substr(8)] = tensor;
    } else if (absl::StartsWith(name, "in.")) {
      fixture.inputs_[name.substr(3)] = tensor;
    } else if (absl::StartsWith(name, "out.")) {
      fixture.expected_[name.substr(4)] = tensor;
    } else {
      return fixture.Error(absl::StrCat("tensor `", name, "` is named neither in.* nor out.*"));
    }
  }
  if (fixture.expected_.empty()) return fixture.Error("it has no out.* tensor to compare with");
  return fixture;
}

absl::Status Fixture::Error(const std::string& message) const {
  return absl::InvalidArgumentError(absl::StrCat(path_, ": ", message));
}

absl::StatusOr<at::Tensor> Fixture::Input(const std::string& name, int64_t dims) const {
  auto found = inputs_.find(name);
  if (found == inputs_.end()) {
    return Error(absl::StrCat("kind `", kind_, "` needs the tensor in.", name));
  }
  if (found->second.dim() != dims) {
    return Error(absl::StrCat("in.", name, " has the shape ", ShapeText(found->second),
                              ", expected ", dims, " dimensions"));
  }
  return found->second;
}

absl::StatusOr<at::Tensor> Fixture::Floats(const std::string& name, int64_t dims) const {
  DDPO_ASSIGN_OR_RETURN(at::Tensor tensor, Input(name, dims));
  if (!tensor.is_floating_point()) {
    return Error(absl::StrCat("in.", name, " holds integers, expected floating-point numbers"));
  }
  return tensor.to(at::kFloat);
}

absl::StatusOr<at::Tensor> Fixture::Integers(const std::string& name, int64_t dims) const {
  DDPO_ASSIGN_OR_RETURN(at::Tensor tensor, Input(name, dims));
  if (tensor.is_floating_point()) {
    return Error(absl::StrCat("in.", name, " holds floating-point numbers, expected integers"));
  }
  return tensor.to(at::kLong);
}

absl::StatusOr<at::Tensor> Fixture::Images(const std::string& name) const {
  DDPO_ASSIGN_OR_RETURN(at::Tensor tensor, Input(name, 4));
  if (tensor.scalar_type() != at::kByte || tensor.size(3) != 3) {
    return Error(absl::StrCat("in.", name, " has the shape ", ShapeText(tensor),
                              ", expected [B,H,W,3] of uint8"));
  }
  return tensor.contiguous();
}

absl::StatusOr<std::vector<std::string>> Fixture::Strings(const std::string& key) const {
  auto found = params_.find(key);
  if (found == params_.end() || !found->is_array()) {
    return Error(absl::StrCat("params.", key, " has to be a list of strings"));
  }
  std::vector<std::string> strings;
  for (const nlohmann::json& element : *found) {
    if (!element.is_string()) {
      return Error(absl::StrCat("params.", key, " has to be a list of strings"));
    }
    strings.push_back(element.get<std::string>());
  }
  return strings;
}

absl::StatusOr<std::string> Fixture::String(const std::string& key) const {
  auto found = params_.find(key);
  if (found == params_.end() || !found->is_string()) {
    return Error(absl::StrCat("params.", key, " has to be a string"));
  }
  return found->get<std::string>();
}

absl::StatusOr<double> Fixture::Number(const std::string& key) const {
  auto found = params_.find(key);
  if (found == params_.end() || !found->is_number()) {
    return Error(absl::StrCat("params.", key, " has to be a number"));
  }
  return found->get<double>();
}

absl::StatusOr<int64_t> Fixture::Integer(const std::string& key) const {
  auto found = params_.find(key);
  if (found == params_.end() || !found->is_number_integer()) {
    return Error(absl::StrCat("params.", key, " has to be an integer"));
  }
  return found->get<int64_t>();
}

absl::StatusOr<double> Fixture::NumberOr(const std::string& key, double fallback) const {
  if (!params_.contains(key)) return fallback;
  return Number(key);
}

}  // namespace ddpo
