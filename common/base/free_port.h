#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace ddpo {

// A port on which nothing listens at the moment, for a process that cannot say which one it took,
// or that is to find its port free again after a restart: it lies outside the range from which the
// kernel gives ports to outgoing connections. Another program may take it all the same. `host` is an
// address of this machine.
absl::StatusOr<int> FreePort(const std::string& host = "127.0.0.1");

}  // namespace ddpo
