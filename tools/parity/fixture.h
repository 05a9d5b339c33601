#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/tensors/safetensors.h"

namespace ddpo {

// One comparison with the Python reference: a safetensors file whose metadata has `kind` and
// `params` (a JSON object), inputs named in.*, expected tensors named out.*.
class Fixture {
 public:
  // Errors name the file: NOT_FOUND, DATA_LOSS, INVALID_ARGUMENT for metadata that does not fit.
  static absl::StatusOr<Fixture> Read(const std::string& path);

  const std::string& path() const { return path_; }
  const std::string& kind() const { return kind_; }
  // out.*, without the prefix.
  const NamedTensors& expected() const { return expected_; }
  // in.lora.*, without `in.lora.`: PEFT's keys. Empty where there are none.
  const NamedTensors& lora() const { return lora_; }

  // in.NAME with `dims` dimensions, as float32 for floating-point inputs and int64 for others.
  // INVALID_ARGUMENT where it is missing or has another shape.
  absl::StatusOr<at::Tensor> Floats(const std::string& name, int64_t dims) const;
  absl::StatusOr<at::Tensor> Integers(const std::string& name, int64_t dims) const;
  // in.NAME [B,H,W,3] uint8.
  absl::StatusOr<at::Tensor> Images(const std::string& name) const;

  // params.KEY. INVALID_ARGUMENT where it is missing or of another type.
  absl::StatusOr<std::vector<std::string>> Strings(const std::string& key) const;
  absl::StatusOr<std::string> String(const std::string& key) const;
  absl::StatusOr<double> Number(const std::string& key) const;
  absl::StatusOr<int64_t> Integer(const std::string& key) const;
  // A number, or `fallback` where the key is absent.
  absl::StatusOr<double> NumberOr(const std::string& key, double fallback) const;
  bool HasParam(const std::string& key) const { return params_.contains(key); }

  // `message` as INVALID_ARGUMENT that names this fixture.
  absl::Status Error(const std::string& message) const;

 private:
  Fixture() = default;

  absl::StatusOr<at::Tensor> Input(const std::string& name, int64_t dims) const;

  std::string path_;
  std::string kind_;
  nlohmann::json params_;
  NamedTensors inputs_;
  NamedTensors lora_;
  NamedTensors expected_;
};

}  // namespace ddpo
