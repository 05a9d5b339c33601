#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ddpo/config/v1/config.pb.h"

namespace ddpo {

// This machine's GPUs as CUDA_VISIBLE_DEVICES names them: what that variable says or, where it is
// not set, a number for each folder of `driver_folder`. Empty where there are none, or no driver
// tells of them.
std::vector<std::string> VisibleGpus(const std::string& driver_folder = "/proc/driver/nvidia/gpus");

// Which of `gpus` each process of a local cluster works on, by its name as in `learner-1`: the
// learner's ranks, then actors, then reward servers, in turn, so that processes share a GPU only
// where there are more of them. Without those on the CPU; empty where `gpus` is. INVALID_ARGUMENT
// for more ranks than GPUs: NCCL has one rank on a GPU.
absl::StatusOr<std::map<std::string, std::string>> AssignGpus(const config::v1::Config& config,
                                                              const std::vector<std::string>& gpus);

}  // namespace ddpo
