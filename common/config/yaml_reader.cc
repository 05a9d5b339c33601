#include "common/config/yaml_reader.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "ddpo/config/v1/config.pb.h"

namespace ddpo {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

const config::v1::FieldRule& RuleOf(const FieldDescriptor* field) {
  return field->options().GetExtension(config::v1::rule);
}

// Edit distance, for naming the key that was probably meant.
size_t Distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] != b[j - 1] ? 1 : 0);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row[b.size()];
}

std::string UnknownKey(const Descriptor* descriptor, const std::string& key) {
  std::vector<std::string> known;
  std::string nearest;
  size_t best = 4;  // more edits than three is another word
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const std::string& name = descriptor->field(i)->name();
    known.push_back(name);
    if (const size_t distance = Distance(key, name); distance < best) {
      best = distance;
      nearest = name;
    }
  }
  if (!nearest.empty()) return absl::StrCat("unknown key (did you mean ", nearest, "?)");
  return absl::StrCat("unknown key; known are ", absl::StrJoin(known, ", "));
}

std::string RangeText(const config::v1::FieldRule& rule) {
  const std::string min = absl::StrFormat("%.15g", rule.min());
  const std::string max = absl::StrFormat("%.15g", rule.max());
  if (rule.has_min() && rule.has_max()) {
    return rule.exclusive_min() ? absl::StrCat("more than ", min, " up to ", max)
                                : absl::StrCat(min, " … ", max);
  }
  if (rule.has_min()) return absl::StrCat(rule.exclusive_min() ? "more than " : "at least ", min);
  return absl::StrCat("at most ", max);
}

bool InRange(const config::v1::FieldRule& rule, double value) {
  if (rule.has_min() && (value < rule.min() || (rule.exclusive_min() && value == rule.min()))) {
    return false;
  }
  return !rule.has_max() || value <= rule.max();
}

std::string Join(const std::string& path, const std::string& key) {
  return path.empty() ? key : absl::StrCat(path, ".", key);
}

// Sets a numeric or string field from text; an empty string, or what is wrong with the text.
std::string SetFromText(const std::string& text, const FieldDescriptor* field, Message* message) {
  const Reflection* reflection = message->GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_INT64: {
      int64_t value = 0;
      if (!absl::SimpleAtoi(text, &value)) return absl::StrCat("`", text, "` is not an integer");
      const bool narrow = field->cpp_type() == FieldDescriptor::CPPTYPE_INT32;
      if (!InRange(RuleOf(field), static_cast<double>(value)) ||
          (narrow && value != static_cast<int32_t>(value))) {
        return absl::StrCat(text, " is out of range: expected ", RangeText(RuleOf(field)));
      }
      if (narrow) {
        reflection->SetInt32(message, field, static_cast<int32_t>(value));
      } else {
        reflection->SetInt64(message, field, value);
      }
      return "";
    }
    case FieldDescriptor::CPPTYPE_UINT64: {
      uint64_t value = 0;
      if (!absl::SimpleAtoi(text, &value)) {
        return absl::StrCat("`", text, "` is not an integer from 0 to 2^64 − 1");
      }
      reflection->SetUInt64(message, field, value);
      return "";
    }
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      double value = 0;
      if (!absl::SimpleAtod(text, &value) || !std::isfinite(value)) {
        return absl::StrCat("`", text, "` is not a number");
      }
      if (!InRange(RuleOf(field), value)) {
        return absl::StrCat(text, " is out of range: expected ", RangeText(RuleOf(field)));
      }
      reflection->SetDouble(message, field, value);
      return "";
    }
    case FieldDescriptor::CPPTYPE_BOOL: {
      if (text != "true" && text != "false") {
        return absl::StrCat("`", text, "` is not true or false");
      }
      reflection->SetBool(message, field, text == "true");
      return "";
    }
    case FieldDescriptor::CPPTYPE_STRING: {
      const auto& allowed = RuleOf(field).one_of();
      if (!allowed.empty() && std::find(allowed.begin(), allowed.end(), text) == allowed.end()) {
        return absl::StrCat("`", text, "`: expected ", absl::StrJoin(allowed, " or "));
      }
      if (field->is_repeated()) {
        reflection->AddString(message, field, text);
      } else {
        reflection->SetString(message, field, text);
      }
      return "";
    }
    default:
      return absl::StrCat("keys of type ", field->cpp_type_name(), " cannot be set");
  }
}

// Parses text as YAML; yaml-cpp reports errors by exceptions.
absl::StatusOr<YAML::Node> ParseYaml(const std::string& text, const std::string& source) {
  try {
    return YAML::Load(text);
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ":", error.mark.line + 1, ": not YAML: ", error.msg));
  }
}

}  // namespace

void YamlReader::AddFault(const YAML::Node& node, const std::string& path,
                          const std::string& what) {
  const int line = node.IsDefined() ? node.Mark().line : -1;
  faults_.push_back(absl::StrCat(source_, line >= 0 ? absl::StrCat(":", line + 1) : "", ": ", path,
                                 path.empty() ? "" : ": ", what));
}

void YamlReader::ReadMessage(const YAML::Node& node, const std::string& path, Message* message) {
  if (node.IsNull()) return;
  if (!node.IsMap()) return AddFault(node, path, "expected a mapping of keys to values");
  std::set<std::string> seen;
  for (const auto& entry : node) {
    if (!entry.first.IsScalar()) {
      AddFault(entry.first, path, "a key has to be a name");
      continue;
    }
    const std::string key = entry.first.Scalar();
    const std::string key_path = Join(path, key);
    const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(key);
    if (field == nullptr) {
      AddFault(entry.first, key_path, UnknownKey(message->GetDescriptor(), key));
    } else if (!seen.insert(key).second) {
      AddFault(entry.first, key_path, "the key is there twice");
    } else {
      ReadField(entry.second, key_path, field, message);
    }
  }
}

void YamlReader::ReadField(const YAML::Node& node, const std::string& path,
                           const FieldDescriptor* field, Message* message) {
  const Reflection* reflection = message->GetReflection();
  if (field->is_repeated()) {
    if (!node.IsSequence()) return AddFault(node, path, "expected a list");
    reflection->ClearField(message, field);
    for (const YAML::Node& element : node) ReadScalar(element, path, field, message);
  } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    ReadMessage(node, path, reflection->MutableMessage(message, field));
  } else {
    ReadScalar(node, path, field, message);
  }
}

void YamlReader::ReadScalar(const YAML::Node& node, const std::string& path,
                            const FieldDescriptor* field, Message* message) {
  if (!node.IsScalar()) return AddFault(node, path, "expected a single value");
  const std::string fault = SetFromText(node.Scalar(), field, message);
  if (!fault.empty()) AddFault(node, path, fault);
}

void YamlReader::ReadOverride(const std::string& key, const YAML::Node& value, Message* message) {
  const size_t dot = key.find('.');
  std::string path;
  std::string rest = key;
  for (size_t at = dot; at != std::string::npos; at = rest.find('.')) {
    const std::string name = rest.substr(0, at);
    rest = rest.substr(at + 1);
    const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(name);
    path = Join(path, name);
    if (field == nullptr) return AddFault({}, path, UnknownKey(message->GetDescriptor(), name));
    if (field->is_repeated() || field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
      return AddFault({}, path, "has no keys below it");
    }
    message = message->GetReflection()->MutableMessage(message, field);
  }
  const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(rest);
  path = Join(path, rest);
  if (field == nullptr) return AddFault({}, path, UnknownKey(message->GetDescriptor(), rest));
  ReadField(value, path, field, message);
}

void SetDefaults(Message* message) {
  const Reflection* reflection = message->GetReflection();
  for (int i = 0; i < message->GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = message->GetDescriptor()->field(i);
    if (field->is_repeated()) continue;
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      SetDefaults(reflection->MutableMessage(message, field));
    } else if (!RuleOf(field).default_value().empty()) {
      SetFromText(RuleOf(field).default_value(), field, message);
    }
  }
}

std::vector<std::string> MissingRequired(const Message& message, const std::string& path) {
  std::vector<std::string> missing;
  const Reflection* reflection = message.GetReflection();
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = message.GetDescriptor()->field(i);
    const std::string key_path = Join(path, field->name());
    if (field->is_repeated()) continue;
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      const auto inner = MissingRequired(reflection->GetMessage(message, field), key_path);
      missing.insert(missing.end(), inner.begin(), inner.end());
    } else if (RuleOf(field).required() && field->cpp_type() == FieldDescriptor::CPPTYPE_STRING &&
               reflection->GetString(message, field).empty()) {
      missing.push_back(key_path);
    }
  }
  return missing;
}

absl::Status ParseYamlMessage(const std::string& yaml, const std::string& source,
                              const std::vector<std::string>& overrides, Message* message) {
  SetDefaults(message);
  DDPO_ASSIGN_OR_RETURN(const YAML::Node root, ParseYaml(yaml, source));
  YamlReader reader(source);
  reader.ReadMessage(root, "", message);
  std::vector<std::string> faults = reader.faults();
  for (const std::string& override_text : overrides) {
    const std::string override_source = absl::StrCat("--set ", override_text);
    const size_t equals = override_text.find('=');
    if (equals == std::string::npos || equals == 0) {
      faults.push_back(absl::StrCat(override_source, ": expected KEY=VALUE"));
      continue;
    }
    DDPO_ASSIGN_OR_RETURN(const YAML::Node value,
                          ParseYaml(override_text.substr(equals + 1), override_source));
    YamlReader override_reader(override_source);
    override_reader.ReadOverride(override_text.substr(0, equals), value, message);
    faults.insert(faults.end(), override_reader.faults().begin(), override_reader.faults().end());
  }
  for (const std::string& path : MissingRequired(*message)) {
    faults.push_back(absl::StrCat(source, ": ", path, ": the key is missing"));
  }
  if (!faults.empty()) return absl::InvalidArgumentError(absl::StrJoin(faults, "\n"));
  return absl::OkStatus();
}

}  // namespace ddpo
