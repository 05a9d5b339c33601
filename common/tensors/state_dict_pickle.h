#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ddpo {

// A tensor as torch.save describes it: a strided view of a storage that lies elsewhere.
struct PickledTensor {
  std::string storage_type;  // as in `FloatStorage`
  std::string storage_key;   // names the file's entry data/KEY
  int64_t storage_elements = 0;
  int64_t offset = 0;  // in elements, as the strides
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
};

// Reads the data.pkl that torch.save writes for a state dict (pickle protocol 2), without running
// what a pickle can ask for: the instructions and names that a dictionary of tensors needs are
// interpreted, anything else is INVALID_ARGUMENT and named. DATA_LOSS for a pickle that ends early
// or makes no sense, RESOURCE_EXHAUSTED for one over 4 MiB. Offsets and sizes are not
// negative; whether they fit the storage is for the caller to see.
// Instructions: CPython's Lib/pickletools.py
absl::StatusOr<std::map<std::string, PickledTensor>> ParseStateDictPickle(const std::string& source,
                                                                          absl::string_view pickle);

}  // namespace ddpo
