#include "common/diffusion/model_index.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

struct Component {
  const char* name;
  // Empty: the component's own configuration says which classes it takes.
  std::vector<std::string> classes;
};

const std::vector<Component>& Components() {
  static const auto& components = *new std::vector<Component>{
      {"scheduler", {}},
      {"text_encoder", {"CLIPTextModel"}},
      {"tokenizer", {"CLIPTokenizer", "CLIPTokenizerFast"}},
      {"unet", {"UNet2DConditionModel"}},
      {"vae", {"AutoencoderKL"}},
  };
  return components;
}

absl::StatusOr<Json> ReadModelIndex(const std::string& dir) {
  std::error_code error;
  if (!fs::is_directory(dir, error)) {
    return absl::NotFoundError(absl::StrCat(dir, ": no such folder"));
  }
  const std::string path = dir + "/model_index.json";
  std::ifstream file(path);
  if (!file) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": no such file; expected a folder in diffusers' layout"));
  }
  Json index = Json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!index.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a JSON object"));
  }
  return index;
}

absl::Status WrongValue(const std::string& dir, const std::string& key, const Json& index,
                        const std::string& expected) {
  return absl::InvalidArgumentError(absl::StrCat(
      dir, "/model_index.json: ", key, " is ",
      index.contains(key) ? index[key].dump() : std::string("missing"), ", expected ", expected));
}

}  // namespace

absl::Status CheckModelIndex(const std::string& dir) {
  DDPO_ASSIGN_OR_RETURN(const Json index, ReadModelIndex(dir));
  if (!index.contains("_class_name") || index["_class_name"] != "StableDiffusionPipeline") {
    return WrongValue(dir, "_class_name", index,
                      "“StableDiffusionPipeline” (only the Stable Diffusion 1.x family is "
                      "supported)");
  }
  for (const Component& component : Components()) {
    const std::string expected =
        component.classes.empty() ? "a scheduler" : absl::StrJoin(component.classes, " or ");
    const auto entry = index.find(component.name);
    if (entry == index.end() || !entry->is_array() || entry->size() != 2 ||
        !(*entry)[1].is_string()) {
      return WrongValue(dir, component.name, index, absl::StrCat("[library, ", expected, "]"));
    }
    const std::vector<std::string>& classes = component.classes;
    if (!classes.empty() && std::find(classes.begin(), classes.end(),
                                      (*entry)[1].get<std::string>()) == classes.end()) {
      return WrongValue(dir, component.name, index, expected);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> DigestModelFolder(const std::string& dir) {
  std::vector<std::string> names = {"model_index.json"};
  std::error_code error;
  for (const Component& component : Components()) {
    for (const fs::directory_entry& file :
         fs::directory_iterator(dir + "/" + component.name, error)) {
      const std::string extension = file.path().extension();
      if (file.is_regular_file(error) &&
          (extension == ".json" || extension == ".txt" || extension == ".safetensors")) {
        names.push_back(absl::StrCat(component.name, "/", file.path().filename().string()));
      }
    }
  }
  std::sort(names.begin(), names.end());
  std::string summary;
  for (const std::string& name : names) {
    DDPO_ASSIGN_OR_RETURN(const std::string digest, Sha256HexOfFile(dir + "/" + name));
    absl::StrAppend(&summary, name, " ", fs::file_size(dir + "/" + name, error), " ", digest, "\n");
  }
  return Sha256Hex(summary);
}

}  // namespace ddpo
