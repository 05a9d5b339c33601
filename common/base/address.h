#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ddpo {

struct HostPort {
  std::string host;  // an IPv6 address without its brackets
  int port = 0;

  // HOST:PORT, or [HOST]:PORT where the host holds colons.
  std::string ToString() const;
};

// Parses HOST:PORT; an IPv6 address stands in brackets. INVALID_ARGUMENT quotes the address and
// says what was expected.
absl::StatusOr<HostPort> ParseHostPort(absl::string_view address);

// Whether only this machine can reach the host: `localhost`, an address of 127.0.0.0/8, or ::1.
// Any other name is not taken for loopback, whatever it resolves to.
bool IsLoopbackHost(const std::string& host);

}  // namespace ddpo
