#pragma once

#include <ATen/ATen.h>

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ddpo {

// Tensors by name, in the order in which safetensors files are written.
using NamedTensors = std::map<std::string, at::Tensor>;

struct SafetensorsContents {
  NamedTensors tensors;
  std::map<std::string, std::string> metadata;  // the file's __metadata__
};

// Reads a file (memory-mapped: tensors keep the mapping alive and are not copied) or, where `path`
// names an index (…​.safetensors.index.json), the sharded files beside it. Dtypes: F64, F32,
// F16, BF16, I64, I32, I16, I8, U8, BOOL. Errors name the file and the tensor: NOT_FOUND, DATA_LOSS
// for a damaged file (truncated, offsets that overlap or leave the file, a header over 100 MB).
// Format: https://github.com/huggingface/safetensors
absl::StatusOr<SafetensorsContents> ReadSafetensors(const std::string& path);

// The same for a file that is already in memory, as it comes from the wire. Copies.
absl::StatusOr<SafetensorsContents> ParseSafetensors(const std::string& bytes);

// Contents of the file, byte for byte the same for the same tensors and metadata.
std::string SerializeSafetensors(const NamedTensors& tensors,
                                 const std::map<std::string, std::string>& metadata = {});

// Writes under a temporary name, syncs and renames.
absl::Status WriteSafetensors(const std::string& path, const NamedTensors& tensors,
                              const std::map<std::string, std::string>& metadata = {});

}  // namespace ddpo
