#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ddpo/config/v1/config.pb.h"

namespace ddpo {

// Reads a configuration as YAML. Field names, defaults and ranges come from
// proto/ddpo/config/v1/config.proto. `overrides` are KEY=VALUE with dotted keys and YAML values, as
// in `training.learning_rate=1e-3`, and win over the text. `source` names the text in errors.
//
// INVALID_ARGUMENT lists every fault with its place, as in
//   demo.yaml:7: training.learning_rat: unknown key (did you mean learning_rate?)
//   demo.yaml:9: sampling.batch_size: `many` is not an integer
//   --set run.epochs=0: run.epochs: 0 is out of range: expected 1 … 1000000
absl::StatusOr<config::v1::Config> ParseConfig(const std::string& yaml, const std::string& source,
                                               const std::vector<std::string>& overrides = {});

// Reads a file, or the preset assets/configs/NAME.yaml if there is no such file.
absl::StatusOr<config::v1::Config> LoadConfig(const std::string& file_or_preset,
                                              const std::vector<std::string>& overrides = {});

// What no single field can say: sizes that must divide each other, one source of prompts.
absl::Status ValidateConfig(const config::v1::Config& config);

// Every key with its value; ParseConfig gives the same configuration back.
std::string ConfigToYaml(const config::v1::Config& config);

// SHA-256 of the resolved configuration, hexadecimal; without `security`, which may change at any
// time and is each machine's own.
std::string ConfigDigest(const config::v1::Config& config);

// Keys whose values differ, as in `sampling.num_steps: 10 → 20`.
std::vector<std::string> ConfigDifferences(const config::v1::Config& before,
                                           const config::v1::Config& after);

}  // namespace ddpo
