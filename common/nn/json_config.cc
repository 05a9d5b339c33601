#include "common/nn/json_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace ddpo {

using Json = nlohmann::json;

JsonConfig::JsonConfig(std::string path, Json json)
    : path_(std::move(path)), json_(std::make_unique<Json>(std::move(json))) {}
JsonConfig::~JsonConfig() = default;
JsonConfig::JsonConfig(JsonConfig&&) noexcept = default;

absl::StatusOr<JsonConfig> JsonConfig::Read(const std::string& path) {
  DDPO_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a JSON object"));
  }
  return JsonConfig(path, std::move(json));
}

absl::StatusOr<JsonConfig> JsonConfig::ReadIfThere(const std::string& path) {
  if (FileSystem::Real()->Exists(path)) return Read(path);
  return Empty(path);
}

JsonConfig JsonConfig::Of(const std::string& path, Json json) {
  return JsonConfig(path, std::move(json));
}

JsonConfig JsonConfig::Empty(const std::string& path) { return JsonConfig(path, Json::object()); }

bool JsonConfig::Has(const std::string& key) const {
  const auto found = json_->find(key);
  return found != json_->end() && !found->is_null();
}

absl::Status JsonConfig::Error(const std::string& key, const std::string& expected) const {
  const std::string value = json_->contains(key) ? (*json_)[key].dump() : "missing";
  return absl::InvalidArgumentError(
      absl::StrCat(path_, ": ", key, " is ", value, ", expected ", expected));
}

absl::StatusOr<int64_t> JsonConfig::Int(const std::string& key, int64_t fallback, int64_t low,
                                        int64_t high) const {
  if (!Has(key)) return fallback;
  const Json& value = (*json_)[key];
  if (!value.is_number_integer() || value < low || value > high) {
    return Error(key, absl::StrCat("a whole number in ", low, " … ", high));
  }
  return value.get<int64_t>();
}

absl::StatusOr<double> JsonConfig::Number(const std::string& key, double fallback) const {
  if (!Has(key)) return fallback;
  if (!(*json_)[key].is_number()) return Error(key, "a number");
  return (*json_)[key].get<double>();
}

absl::StatusOr<bool> JsonConfig::Bool(const std::string& key, bool fallback) const {
  if (!Has(key)) return fallback;
  if (!(*json_)[key].is_boolean()) return Error(key, "true or false");
  return (*json_)[key].get<bool>();
}

absl::StatusOr<std::string> JsonConfig::String(const std::string& key,
                                               const std::string& fallback) const {
  if (!Has(key)) return fallback;
  if (!(*json_)[key].is_string()) return Error(key, "a text");
  return (*json_)[key].get<std::string>();
}

absl::StatusOr<std::vector<int64_t>> JsonConfig::IntList(
    const std::string& key, const std::vector<int64_t>& fallback) const {
  if (!Has(key)) return fallback;
  const Json& list = (*json_)[key];
  const auto fits = [](const Json& value) {
    return value.is_number_integer() && value >= 1 && value <= (1 << 20);
  };
  if (!list.is_array() || list.empty() || !std::all_of(list.begin(), list.end(), fits)) {
    return Error(key, "a list of whole numbers");
  }
  return list.get<std::vector<int64_t>>();
}

absl::StatusOr<JsonConfig> JsonConfig::Object(const std::string& key) const {
  const std::string name = absl::StrCat(path_, ": ", key);
  if (!Has(key)) return JsonConfig(name, Json::object());
  if (!(*json_)[key].is_object()) return Error(key, "an object");
  return JsonConfig(name, (*json_)[key]);
}

absl::StatusOr<std::vector<JsonConfig>> JsonConfig::Objects(const std::string& key) const {
  std::vector<JsonConfig> objects;
  if (!Has(key)) return objects;
  const Json& list = (*json_)[key];
  if (!list.is_array()) return Error(key, "a list of objects");
  for (size_t i = 0; i < list.size(); ++i) {
    if (!list[i].is_object()) return Error(key, "a list of objects");
    objects.push_back(JsonConfig(absl::StrCat(path_, ": ", key, "[", i, "]"), list[i]));
  }
  return objects;
}

absl::Status JsonConfig::Require(const std::string& key,
                                 const std::vector<std::string>& allowed) const {
  if (!Has(key)) return absl::OkStatus();
  for (const std::string& text : allowed) {
    if ((*json_)[key] == Json::parse(text)) return absl::OkStatus();
  }
  return Error(key, allowed.empty() ? "null" : absl::StrJoin(allowed, " or "));
}

absl::Status JsonConfig::RequirePresent(const std::string& key,
                                        const std::vector<std::string>& allowed) const {
  if (!Has(key)) return Error(key, absl::StrJoin(allowed, " or "));
  return Require(key, allowed);
}

}  // namespace ddpo
