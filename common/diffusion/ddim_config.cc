#include "common/diffusion/ddim_config.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

using Json = nlohmann::json;

// Schedulers whose configuration describes the same forward process as DDIM's. The class names how
// the pipeline's author sampled; DDPO samples with DDIM.
const std::vector<std::string>& Classes() {
  static const auto& classes = *new std::vector<std::string>{
      "DDIMScheduler",
      "DDPMScheduler",
      "DEISMultistepScheduler",
      "DPMSolverMultistepScheduler",
      "DPMSolverSinglestepScheduler",
      "EulerAncestralDiscreteScheduler",
      "EulerDiscreteScheduler",
      "HeunDiscreteScheduler",
      "KDPM2AncestralDiscreteScheduler",
      "KDPM2DiscreteScheduler",
      "LMSDiscreteScheduler",
      "PNDMScheduler",
      "UniPCMultistepScheduler",
  };
  return classes;
}

// Keys that switch on something DdimScheduler does not do, with the values that leave it off. An
// absent key is off: diffusers' default of clip_sample is true, but its StableDiffusionPipeline
// turns it off.
const std::map<std::string, std::vector<Json>>& FixedKeys() {
  static const auto& keys = *new std::map<std::string, std::vector<Json>>{
      {"clip_sample", {false}},
      {"rescale_betas_zero_snr", {false}},
      {"thresholding", {false}},
      {"trained_betas", {nullptr}},
  };
  return keys;
}

// Bounds the table of ᾱ that a damaged file can ask for.
constexpr int64_t kMaxTrainTimesteps = 1 << 20;

class ConfigReader {
 public:
  ConfigReader(const std::string& path, const Json& json) : path_(path), json_(json) {}

  absl::Status Error(const std::string& key, const std::string& expected) const {
    const std::string value = json_.contains(key) ? json_[key].dump() : "missing";
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": ", key, " is ", value, ", expected ", expected));
  }

  absl::Status RefuseUnsupported() const {
    for (const auto& [key, allowed] : FixedKeys()) {
      if (!json_.contains(key)) continue;
      if (std::find(allowed.begin(), allowed.end(), json_[key]) == allowed.end()) {
        return Error(key, allowed.front().dump());
      }
    }
    return absl::OkStatus();
  }

  absl::Status OneOf(const std::string& key, const std::vector<std::string>& allowed,
                     std::string& value) const {
    if (!json_.contains(key)) return absl::OkStatus();
    if (json_[key].is_string()) {
      value = json_[key].get<std::string>();
      if (std::find(allowed.begin(), allowed.end(), value) != allowed.end()) {
        return absl::OkStatus();
      }
    }
    return Error(key, absl::StrCat("one of ", absl::StrJoin(allowed, ", ")));
  }

  absl::Status Integer(const std::string& key, int64_t low, int64_t high, int64_t& value) const {
    if (!json_.contains(key)) return absl::OkStatus();
    if (json_[key].is_number_integer()) {
      value = json_[key].get<int64_t>();
      if (value >= low && value <= high) return absl::OkStatus();
    }
    return Error(key, absl::StrCat("a whole number from ", low, " to ", high));
  }

  absl::Status Beta(const std::string& key, double& value) const {
    if (!json_.contains(key)) return absl::OkStatus();
    if (json_[key].is_number()) {
      value = json_[key].get<double>();
      if (value > 0 && value < 1) return absl::OkStatus();
    }
    return Error(key, "a number between 0 and 1");
  }

  absl::Status Bool(const std::string& key, bool& value) const {
    if (!json_.contains(key)) return absl::OkStatus();
    if (!json_[key].is_boolean()) return Error(key, "true or false");
    value = json_[key].get<bool>();
    return absl::OkStatus();
  }

 private:
  const std::string& path_;
  const Json& json_;
};

}  // namespace

absl::StatusOr<DdimConfig> ReadDdimConfig(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": no such file"));
  const Json json = Json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a JSON object"));
  }
  const ConfigReader reader(path, json);
  std::string class_name;
  if (!json.contains("_class_name")) return reader.Error("_class_name", "DDIMScheduler");
  DDPO_RETURN_IF_ERROR(reader.OneOf("_class_name", Classes(), class_name));
  DDPO_RETURN_IF_ERROR(reader.RefuseUnsupported());
  DdimConfig config;
  DDPO_RETURN_IF_ERROR(
      reader.Integer("num_train_timesteps", 1, kMaxTrainTimesteps, config.num_train_timesteps));
  DDPO_RETURN_IF_ERROR(reader.Beta("beta_start", config.beta_start));
  DDPO_RETURN_IF_ERROR(reader.Beta("beta_end", config.beta_end));
  DDPO_RETURN_IF_ERROR(reader.OneOf(
      "beta_schedule", {"linear", "scaled_linear", "squaredcos_cap_v2"}, config.beta_schedule));
  DDPO_RETURN_IF_ERROR(reader.Bool("set_alpha_to_one", config.set_alpha_to_one));
  DDPO_RETURN_IF_ERROR(
      reader.Integer("steps_offset", 0, config.num_train_timesteps - 1, config.steps_offset));
  DDPO_RETURN_IF_ERROR(reader.OneOf("prediction_type", {"epsilon", "v_prediction", "sample"},
                                    config.prediction_type));
  DDPO_RETURN_IF_ERROR(reader.OneOf("timestep_spacing", {"leading", "trailing", "linspace"},
                                    config.timestep_spacing));
  return config;
}

}  // namespace ddpo
