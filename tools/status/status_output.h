#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "ddpo/cluster/v1/cluster.pb.h"

namespace ddpo {

// What a cluster is doing now, as people read it: the run, line by line, then a table of its
// actors. Ends with a newline.
std::string ClusterStatusText(const cluster::v1::GetStatusResponse& status);

// The same for programs. Ages are seconds; what is not there (no checkpoint, no complete epoch, no
// error) is null.
nlohmann::json ClusterStatusJson(const cluster::v1::GetStatusResponse& status);

}  // namespace ddpo
