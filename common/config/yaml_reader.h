#pragma once

#include <google/protobuf/message.h>
#include <yaml-cpp/yaml.h>

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace ddpo {

// Fills a message from YAML by reflection, with the FieldRule options of its fields. Faults are
// collected, not thrown, each with its place and key path.
class YamlReader {
 public:
  // `source` stands before the line in faults.
  explicit YamlReader(std::string source) : source_(std::move(source)) {}

  // Sets the fields that the mapping names. `path` is the message's own key, empty at the top.
  void ReadMessage(const YAML::Node& node, const std::string& path,
                   google::protobuf::Message* message);

  // Sets one field from a dotted key.
  void ReadOverride(const std::string& key, const YAML::Node& value,
                    google::protobuf::Message* message);

  const std::vector<std::string>& faults() const { return faults_; }

 private:
  void ReadField(const YAML::Node& node, const std::string& path,
                 const google::protobuf::FieldDescriptor* field,
                 google::protobuf::Message* message);
  void ReadScalar(const YAML::Node& node, const std::string& path,
                  const google::protobuf::FieldDescriptor* field,
                  google::protobuf::Message* message);
  void AddFault(const YAML::Node& node, const std::string& path, const std::string& what);

  const std::string source_;
  std::vector<std::string> faults_;
};

// Sets every field that has a default and every sub-message, recursively.
void SetDefaults(google::protobuf::Message* message);

// Fields that have to be given and are not, as key paths.
std::vector<std::string> MissingRequired(const google::protobuf::Message& message,
                                         const std::string& path = "");

// Sets the defaults, reads YAML text and then KEY=VALUE overrides into a message, and checks that
// what is required is there. INVALID_ARGUMENT lists every fault.
absl::Status ParseYamlMessage(const std::string& yaml, const std::string& source,
                              const std::vector<std::string>& overrides,
                              google::protobuf::Message* message);

}  // namespace ddpo
