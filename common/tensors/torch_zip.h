#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/tensors/safetensors.h"

namespace ddpo {

// Reads the tensors of a state dict that torch.save wrote (PyTorch 1.6 and later), without
// unpickling: nothing that the file contains is run (see state_dict_pickle.h). The tensors share
// the file's memory, which they keep alive. Errors name the file and the tensor: NOT_FOUND,
// DATA_LOSS for a damaged file, INVALID_ARGUMENT for one that holds something else.
absl::StatusOr<NamedTensors> ReadTorchZip(const std::string& path);

// The same for a file in memory; `source` stands for it in errors.
absl::StatusOr<NamedTensors> ParseTorchZip(const std::string& source, std::string bytes);

}  // namespace ddpo
