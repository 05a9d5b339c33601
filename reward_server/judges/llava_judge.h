#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "reward_server/judges/image_judge.h"

namespace ddpo {

struct LlavaJudgeOptions {
  // Folder of a LLaVA-1.5 model in transformers' layout; found as FindResource does.
  std::string model;
  // As in ParseNetworkOptions.
  std::string dtype = "float32";
  std::string device = "cpu";
};

// A judge in this process: greedy replies of a LLaVA, without the white space around them. Loads
// it. Errors name the file, the key and both shapes.
absl::StatusOr<std::unique_ptr<ImageJudge>> CreateLlavaJudge(const LlavaJudgeOptions& options);

}  // namespace ddpo
