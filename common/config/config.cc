#include "common/config/config.h"

#include <google/protobuf/util/message_differencer.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "common/base/address.h"
#include "common/base/files.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "common/config/yaml_reader.h"

namespace ddpo {
namespace {

using config::v1::Config;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

void EmitValue(const Message& message, const FieldDescriptor* field, int index,
               YAML::Emitter& out) {
  const auto* reflection = message.GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      out << reflection->GetInt32(message, field);
      break;
    case FieldDescriptor::CPPTYPE_INT64:
      out << reflection->GetInt64(message, field);
      break;
    case FieldDescriptor::CPPTYPE_UINT64:
      out << reflection->GetUInt64(message, field);
      break;
    case FieldDescriptor::CPPTYPE_BOOL:
      out << reflection->GetBool(message, field);
      break;
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      // The shortest text that reads back as the same number.
      const double value = reflection->GetDouble(message, field);
      std::string text;
      for (int digits = 1; digits <= 17; ++digits) {
        char buffer[40];
        snprintf(buffer, sizeof(buffer), "%.*g", digits, value);
        text = buffer;
        if (std::strtod(buffer, nullptr) == value) break;
      }
      out << text;
      break;
    }
    default:
      out << (index >= 0 ? reflection->GetRepeatedString(message, field, index)
                         : reflection->GetString(message, field));
  }
}

void EmitMessage(const Message& message, YAML::Emitter& out) {
  const auto* reflection = message.GetReflection();
  out << YAML::BeginMap;
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = message.GetDescriptor()->field(i);
    // An empty string or list stands for "not given".
    if (field->is_repeated() && reflection->FieldSize(message, field) == 0) continue;
    if (!field->is_repeated() && field->cpp_type() == FieldDescriptor::CPPTYPE_STRING &&
        reflection->GetString(message, field).empty()) {
      continue;
    }
    out << YAML::Key << field->name() << YAML::Value;
    if (field->is_repeated()) {
      out << YAML::BeginSeq;
      for (int j = 0; j < reflection->FieldSize(message, field); ++j) {
        EmitValue(message, field, j, out);
      }
      out << YAML::EndSeq;
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      EmitMessage(reflection->GetMessage(message, field), out);
    } else {
      EmitValue(message, field, -1, out);
    }
  }
  out << YAML::EndMap;
}

// Collects "path: before → after".
class DifferenceReporter : public google::protobuf::util::MessageDifferencer::Reporter {
 public:
  using Path = std::vector<google::protobuf::util::MessageDifferencer::SpecificField>;

  explicit DifferenceReporter(std::vector<std::string>* differences) : differences_(differences) {}

  void ReportAdded(const Message&, const Message& after, const Path& path) override {
    differences_->push_back(absl::StrCat(Name(path), ": added ", Value(after, path.back(), true)));
  }
  void ReportDeleted(const Message& before, const Message&, const Path& path) override {
    differences_->push_back(
        absl::StrCat(Name(path), ": removed ", Value(before, path.back(), false)));
  }
  void ReportModified(const Message& before, const Message& after, const Path& path) override {
    // A message that changed is reported by its fields.
    if (path.back().field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) return;
    differences_->push_back(absl::StrCat(Name(path), ": ", Value(before, path.back(), false), " → ",
                                         Value(after, path.back(), true)));
  }

 private:
  static std::string Name(const Path& path) {
    return absl::StrJoin(path, ".", [](std::string* out, const auto& step) {
      absl::StrAppend(out, step.field->name());
    });
  }
  static std::string Value(const Message& message,
                           const google::protobuf::util::MessageDifferencer::SpecificField& field,
                           bool is_new) {
    YAML::Emitter out;
    EmitValue(message, field.field, is_new ? field.new_index : field.index, out);
    return out.c_str();
  }

  std::vector<std::string>* const differences_;
};

// Options that contradict the objective or each other.
absl::Status ValidateObjective(const Config& config) {
  const auto& training = config.training();
  const std::string& objective = training.objective();
  const auto fault = [](const auto&... parts) {
    return absl::InvalidArgumentError(absl::StrCat(parts...));
  };
  if (objective == "ddpo_sf") {
    const int64_t update_samples = static_cast<int64_t>(training.minibatch_size()) *
                                   training.gradient_accumulation() *
                                   config.cluster().learner_ranks();
    if (update_samples != config.sampling().samples_per_epoch()) {
      return fault("training.objective: ddpo_sf takes one optimizer step an epoch: ",
                   "training.minibatch_size × training.gradient_accumulation × "
                   "cluster.learner_ranks is ",
                   update_samples, ", expected sampling.samples_per_epoch, ",
                   config.sampling().samples_per_epoch());
    }
    if (training.inner_epochs() > 1) {
      return fault("training.inner_epochs: ", training.inner_epochs(),
                   ": ddpo_sf takes one optimizer step an epoch, expected 0 or 1");
    }
    if (training.max_staleness() > 0) {
      return fault("training.max_staleness: ", training.max_staleness(),
                   ": ddpo_sf learns from fresh samples, expected 0");
    }
  }
  if (training.decoupled() && objective != "ddpo_is") {
    return fault("training.decoupled: ", objective, " has no ratio, expected ddpo_is");
  }
  if (objective == "rwr" || objective == "rwr_sparse") {
    if (training.kl_coefficient() > 0) {
      return fault("training.kl_coefficient: ", objective,
                   " learns from no denoising steps, expected 0");
    }
    if (training.timestep_fraction() != 1 || training.skip_last_steps() != 0) {
      return fault("training.timestep_fraction and training.skip_last_steps: ", objective,
                   " learns from no denoising steps, expected 1 and 0");
    }
  }
  if (training.full_finetuning()) {
    if (training.dtype() != "float32") {
      return fault("training.dtype: ", training.dtype(),
                   ": training.full_finetuning needs float32, in which small updates are not lost");
    }
    if (training.kl_coefficient() > 0) {
      return fault(
          "training.kl_coefficient: training.full_finetuning keeps no base model to compare "
          "with, expected 0");
    }
    if (config.sampling().merge_lora()) {
      return fault("sampling.merge_lora: training.full_finetuning has no LoRA, expected false");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Config> ParseConfig(const std::string& yaml, const std::string& source,
                                   const std::vector<std::string>& overrides) {
  Config config;
  DDPO_RETURN_IF_ERROR(ParseYamlMessage(yaml, source, overrides, &config));
  if (absl::Status valid = ValidateConfig(config); !valid.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(source, ": ", valid.message()));
  }
  return config;
}

absl::StatusOr<Config> LoadConfig(const std::string& file_or_preset,
                                  const std::vector<std::string>& overrides) {
  std::string path = file_or_preset;
  if (!FileSystem::Real()->Exists(path)) {
    auto preset = FindResource(absl::StrCat("assets/configs/", file_or_preset, ".yaml"));
    if (!preset.ok()) {
      return absl::NotFoundError(absl::StrCat("config ", file_or_preset,
                                              ": neither a file nor a preset of assets/configs"));
    }
    path = *std::move(preset);
  }
  DDPO_ASSIGN_OR_RETURN(const std::string yaml, ReadFile(path));
  return ParseConfig(yaml, path, overrides);
}

absl::Status ValidateConfig(const Config& config) {
  const auto& sampling = config.sampling();
  const auto& training = config.training();
  const auto fault = [](const auto&... parts) {
    return absl::InvalidArgumentError(absl::StrCat(parts...));
  };
  const int sources = (config.prompts().set().empty() ? 0 : 1) +
                      (config.prompts().file().empty() ? 0 : 1) +
                      (config.prompts().list().empty() ? 0 : 1);
  if (sources != 1) {
    return fault("prompts: give exactly one of set, file and list (found ", sources, ")");
  }
  if (sampling.samples_per_epoch() % sampling.batch_size() != 0) {
    return fault("sampling.samples_per_epoch: ", sampling.samples_per_epoch(),
                 " is not a multiple of sampling.batch_size (", sampling.batch_size(), ")");
  }
  const int64_t step_samples =
      static_cast<int64_t>(training.minibatch_size()) * training.gradient_accumulation();
  if (config.training().skip_last_steps() >= sampling.num_steps()) {
    return fault("training.skip_last_steps: ", config.training().skip_last_steps(),
                 " leaves none of the sampling.num_steps ", sampling.num_steps(), " to train at");
  }
  if (sampling.samples_per_epoch() % (step_samples * config.cluster().learner_ranks()) != 0) {
    return fault("sampling.samples_per_epoch: ", sampling.samples_per_epoch(),
                 " is not a multiple of training.minibatch_size × training.gradient_accumulation × "
                 "cluster.learner_ranks (",
                 step_samples, " × ", config.cluster().learner_ranks(), ")");
  }
  const int ranks = config.cluster().learner_ranks();
  if (sampling.samples_per_epoch() % (static_cast<int64_t>(sampling.batch_size()) * ranks) != 0) {
    return fault("sampling.samples_per_epoch: ", sampling.samples_per_epoch(),
                 " is not a multiple of sampling.batch_size × cluster.learner_ranks (",
                 sampling.batch_size(), " × ", ranks, "): every rank gets as many tasks");
  }
  DDPO_RETURN_IF_ERROR(ValidateObjective(config));
  if (training.stat_min_count() > training.stat_buffer_size()) {
    return fault("training.stat_min_count: ", training.stat_min_count(),
                 " is more than training.stat_buffer_size (", training.stat_buffer_size(), ")");
  }
  const std::string& listen_host = config.cluster().listen_host();
  const auto listen = ParseHostPort(absl::StrCat(listen_host, ":0"));
  if (!listen.ok() || !IsLoopbackHost(listen->host)) {
    return fault("cluster.listen_host: ", listen_host,
                 " is not loopback: expected an address such as 127.0.0.1, as the processes speak "
                 "plain text");
  }
  return absl::OkStatus();
}

std::string ConfigToYaml(const Config& config) {
  YAML::Emitter out;
  EmitMessage(config, out);
  return absl::StrCat(out.c_str(), "\n");
}

std::string ConfigDigest(const Config& config) {
  Config without_security = config;
  without_security.clear_security();
  return Sha256Hex(ConfigToYaml(without_security));
}

std::vector<std::string> ConfigDifferences(const Config& before, const Config& after) {
  std::vector<std::string> differences;
  DifferenceReporter reporter(&differences);
  google::protobuf::util::MessageDifferencer differencer;
  differencer.ReportDifferencesTo(&reporter);
  differencer.Compare(before, after);
  return differences;
}

}  // namespace ddpo
