#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "reward_server/scorer.h"

namespace ddpo {

struct AestheticOptions {
  // Folder of a CLIP model in transformers' layout, with its preprocessor_config.json; found as
  // FindResource does.
  std::string clip;
  // The LAION head, .safetensors or the original .pth: in the folder or else found as well.
  std::string head;
  // As in ParseNetworkOptions. The head always computes in float32.
  std::string dtype = "float32";
  std::string device = "cpu";
};

// The LAION aesthetic predictor: CLIP's image features, divided by their norm, through a head that
// was fitted to people's ratings of 1 … 10. Loads both. The prompt does not matter. Errors name the
// file, the key and both shapes.
absl::StatusOr<std::unique_ptr<Scorer>> MakeAestheticScorer(const AestheticOptions& options);

}  // namespace ddpo
