#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "common/tensors/safetensors.h"
#include "tests/testing/paths.h"

namespace ddpo::testing {

// A golden file in the format of parity fixtures.
struct GoldenFixture {
  nlohmann::json params;
  NamedTensors in;    // without `in.`; no LoRA tensors
  NamedTensors lora;  // of in.lora.*, under PEFT's keys
  NamedTensors out;   // without `out.`
};

// Reads tests/goldens/`path`.
inline GoldenFixture ReadGoldenFixture(const std::string& path) {
  const absl::StatusOr<SafetensorsContents> contents =
      ReadSafetensors(SourcePath("tests/goldens/" + path));
  EXPECT_TRUE(contents.ok()) << contents.status();
  GoldenFixture fixture;
  if (!contents.ok()) return fixture;
  fixture.params = nlohmann::json::parse(contents->metadata.at("params"));
  for (const auto& [name, tensor] : contents->tensors) {
    if (name.starts_with("in.lora.")) {
      fixture.lora[name.substr(8)] = tensor;
    } else if (name.starts_with("in.")) {
      fixture.in[name.substr(3)] = tensor;
    } else {
      fixture.out[name.substr(4)] = tensor;
    }
  }
  return fixture;
}

// The largest |a − b|; infinite where shapes differ.
inline double MaxAbsDiff(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes()) return std::numeric_limits<double>::infinity();
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

}  // namespace ddpo::testing
