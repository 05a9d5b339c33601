#include "tools/up/gpus.h"

#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tools/up/child_names.h"

namespace ddpo {

std::vector<std::string> VisibleGpus(const std::string& driver_folder) {
  if (const char* visible = std::getenv("CUDA_VISIBLE_DEVICES")) {
    std::vector<std::string> gpus;
    for (absl::string_view gpu : absl::StrSplit(visible, ',', absl::SkipWhitespace())) {
      gpu = absl::StripAsciiWhitespace(gpu);
      // As CUDA does: what follows an index that cannot be is not visible.
      if (gpu == "-1") break;
      gpus.emplace_back(gpu);
    }
    return gpus;
  }
  std::vector<std::string> gpus;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(driver_folder, none)) {
    if (entry.is_directory()) gpus.push_back(absl::StrCat(gpus.size()));
  }
  return gpus;
}

absl::StatusOr<std::map<std::string, std::string>> AssignGpus(
    const config::v1::Config& config, const std::vector<std::string>& gpus) {
  std::map<std::string, std::string> assigned;
  if (gpus.empty()) return assigned;
  const config::v1::ClusterConfig& cluster = config.cluster();
  size_t next = 0;
  const auto assign = [&](const std::string& device, int count, auto name) {
    if (device != "cuda") return;
    for (int i = 0; i < count; ++i) assigned[name(i)] = gpus[next++ % gpus.size()];
  };
  if (config.training().device() == "cuda" &&
      static_cast<size_t>(cluster.learner_ranks()) > gpus.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("cluster.learner_ranks: ", cluster.learner_ranks(), " ranks want a GPU each, ",
                     "and this machine shows ", gpus.size()));
  }
  assign(config.training().device(), cluster.learner_ranks(), LearnerName);
  assign(config.sampling().device(), cluster.actors(), ActorName);
  assign(config.scoring().device(), cluster.reward_servers(), RewardServerName);
  return assigned;
}

}  // namespace ddpo
