#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "common/base/status_macros.h"
#include "common/nn/network_options.h"
#include "tools/command.h"
#include "tools/parity/comparison.h"
#include "tools/parity/fixture.h"
#include "tools/parity/kinds.h"

namespace ddpo {
namespace {

constexpr int kAgrees = 0, kDiffers = 1, kUnreadable = 2;

struct ParityFlags {
  std::string model;
  std::vector<std::string> fixtures;
  Tolerance tolerance;
  std::string dtype = "float32";
  std::string device = "cpu";
  std::vector<std::string> only;
  bool json = false;
};

// `pattern` is a tensor's name, or how names begin where it ends with `*`.
bool Matches(absl::string_view name, absl::string_view pattern) {
  return absl::ConsumeSuffix(&pattern, "*") ? absl::StartsWith(name, pattern) : name == pattern;
}

absl::StatusOr<std::vector<TensorComparison>> Compare(const std::string& path,
                                                      const ParityFlags& flags, ParityModel& model,
                                                      std::string* kind) {
  DDPO_ASSIGN_OR_RETURN(Fixture fixture, Fixture::Read(path));
  *kind = fixture.kind();
  static const ParityKinds kinds = AllParityKinds();
  auto found = kinds.find(fixture.kind());
  if (found == kinds.end()) {
    std::string known;
    for (const auto& [name, function] : kinds) known += (known.empty() ? "" : ", ") + name;
    return fixture.Error("unknown kind `" + fixture.kind() + "`; known are " + known);
  }
  NamedTensors actual;
  // What a fixture's odd shapes make LibTorch throw is this fixture's error, not the program's end.
  try {
    at::NoGradGuard no_grad;
    DDPO_ASSIGN_OR_RETURN(actual, found->second(fixture, model));
  } catch (const c10::Error& error) {
    return fixture.Error(error.what_without_backtrace());
  }
  NamedTensors expected = fixture.expected();
  if (!flags.only.empty()) {
    std::erase_if(expected, [&](const auto& entry) {
      return std::none_of(flags.only.begin(), flags.only.end(), [&](const std::string& pattern) {
        return Matches(entry.first, pattern);
      });
    });
    if (expected.empty()) return fixture.Error("none of its out.* tensors is one of --only");
  }
  return CompareTensors(actual, expected, flags.tolerance);
}

nlohmann::ordered_json ToJson(const TensorComparison& c) {
  nlohmann::ordered_json json{{"name", c.name}, {"matches", c.matches}};
  if (!c.problem.empty()) {
    json["problem"] = c.problem;
  } else {
    json["max_absolute"] = c.max_absolute;
    json["max_relative"] = c.max_relative;
    json["cosine"] = c.cosine;
  }
  return json;
}

void Print(const TensorComparison& c) {
  std::cout << absl::StrFormat("  %-4s %-28s ", c.matches ? "ok" : "DIFF", c.name);
  if (!c.problem.empty()) {
    std::cout << c.problem << "\n";
  } else {
    std::cout << absl::StrFormat("max |Δ| %.3g   max |Δ|/|b| %.3g   cosine %.9f\n", c.max_absolute,
                                 c.max_relative, c.cosine);
  }
}

int RunParity(const ParityFlags& flags) {
  absl::StatusOr<NetworkOptions> options = ParseNetworkOptions(flags.dtype, flags.device);
  if (!options.ok()) {
    PrintError("parity", options.status());
    return kUnreadable;
  }
  ParityModel model(flags.model, *options);
  nlohmann::ordered_json report = nlohmann::ordered_json::array();
  int exit_code = kAgrees;
  for (const std::string& path : flags.fixtures) {
    std::string kind;
    absl::StatusOr<std::vector<TensorComparison>> comparisons = Compare(path, flags, model, &kind);
    nlohmann::ordered_json entry{{"fixture", path}, {"kind", kind}};
    if (!comparisons.ok()) {
      exit_code = kUnreadable;
      entry["error"] = comparisons.status().message();
      PrintError("parity", comparisons.status());
    } else {
      if (!flags.json) std::cout << path << " (" << kind << ")\n";
      entry["matches"] = true;
      entry["tensors"] = nlohmann::ordered_json::array();
      for (const TensorComparison& comparison : *comparisons) {
        if (!flags.json) Print(comparison);
        entry["tensors"].push_back(ToJson(comparison));
        if (comparison.matches) continue;
        entry["matches"] = false;
        if (exit_code == kAgrees) exit_code = kDiffers;
      }
    }
    report.push_back(std::move(entry));
  }
  if (flags.json) std::cout << report.dump(2) << "\n";
  return exit_code;
}

}  // namespace

void AddParityCommand(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<ParityFlags>();
  CLI::App* command = app.add_subcommand(
      "parity",
      "Recompute fixtures made with the Python reference and compare. Exit code 0: all "
      "agree, 1: some differ, 2: a fixture or the model can't be read.");
  command->add_option("--model", flags->model, "Folder of the model")->required();
  command->add_option("--fixture", flags->fixtures, "Fixture file; may be repeated")->required();
  command->add_option("--atol", flags->tolerance.absolute, "Allowed |a−b| …")
      ->capture_default_str();
  command->add_option("--rtol", flags->tolerance.relative, "… plus this times |b|")
      ->capture_default_str();
  command->add_option(
      "--only", flags->only,
      "Compare only this out.* tensor, as in log_probs, or those that begin so, as in "
      "'lora.*'; may be repeated");
  command->add_option("--dtype", flags->dtype, "float32, float16 or bfloat16")
      ->capture_default_str();
  command->add_option("--device", flags->device, "cpu or cuda")->capture_default_str();
  command->add_flag("--json", flags->json, "Print JSON");
  command->callback([flags, &exit_code] { exit_code = RunParity(*flags); });
}

}  // namespace ddpo
