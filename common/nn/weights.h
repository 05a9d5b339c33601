#pragma once

#include <ATen/ATen.h>

#include <map>
#include <set>
#include <string>
#include <utility>
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

  // Weights that are in memory already; `source` stands for the path in errors.
  static WeightLoader FromTensors(const std::string& source, NamedTensors tensors,
                                  const NetworkOptions& options) {
    return WeightLoader(source, std::move(tensors), options);
  }

  // Where a network keeps a weight: `shape` as in the file, in rows `first_row` … of `tensor`.
  struct Place {
    at::Tensor tensor;
    int64_t first_row = 0;
    std::vector<int64_t> shape;
  };
  // From here on the places of taken weights are recorded.
  void RecordPlaces() { record_places_ = true; }
  // Says that a taken weight is not kept as Take gave it but within `tensor`.
  void Keep(const std::string& key, const at::Tensor& tensor, int64_t first_row = 0);
  // The recorded places, by key.
  const std::map<std::string, Place>& places() const { return places_; }

  bool Contains(const std::string& key) const { return contents_.contains(key); }
  // Whether some key begins so.
  bool ContainsPrefix(const std::string& prefix) const;

  // Keys that end in `from` end in `to` from here on, as for the names of old checkpoints.
  void RenameEnding(const std::string& from, const std::string& to);

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
  bool record_places_ = false;
  std::map<std::string, Place> places_;
  NetworkOptions options_;
};

}  // namespace ddpo
