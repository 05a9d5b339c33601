#pragma once

#include <ATen/ATen.h>

#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/nn/network_options.h"
#include "common/tensors/safetensors.h"

namespace ddpo {

// Hands a network its frozen weights by key, in the number type and on the device of the options.
// Errors name the file, the key and both shapes.
class WeightLoader {
 public:
  // Reads a folder's weights: diffusion_pytorch_model.safetensors or model.safetensors, or the
  // sharded files that an index (….safetensors.index.json) names. NOT_FOUND if there are none.
  static absl::StatusOr<WeightLoader> Open(const std::string& dir, const NetworkOptions& options);

  // INVALID_ARGUMENT for a key that is missing or has another shape.
  absl::StatusOr<at::Tensor> Take(const std::string& key, at::IntArrayRef shape);

  bool Contains(const std::string& key) const { return contents_.contains(key); }
  // Whether some key begins so.
  bool ContainsPrefix(const std::string& prefix) const;

  // Keys that begin so are known and not needed.
  void Ignore(const std::string& prefix);

  // INVALID_ARGUMENT if keys are left that nothing took: the network is another than the file's.
  absl::Status CheckAllTaken() const;

 private:
  WeightLoader(std::string path, NamedTensors contents, const NetworkOptions& options)
      : path_(std::move(path)), contents_(std::move(contents)), options_(options) {}

  std::string path_;
  NamedTensors contents_;
  std::set<std::string> taken_;
  NetworkOptions options_;
};

}  // namespace ddpo
