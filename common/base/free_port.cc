#include "common/base/free_port.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <random>

#include "absl/strings/str_cat.h"

namespace ddpo {
namespace {

constexpr int kLowestPort = 10000;
constexpr int kAttempts = 100;

// The first port that outgoing connections get; Linux's default where it cannot be read.
int FirstEphemeralPort() {
  std::ifstream range("/proc/sys/net/ipv4/ip_local_port_range");
  int first = 0;
  return range >> first && first > kLowestPort ? first : 32768;
}

}  // namespace

absl::StatusOr<int> FreePort(const std::string& host) {
  std::random_device random;
  std::uniform_int_distribution<int> ports(kLowestPort, FirstEphemeralPort() - 1);
  std::string cause;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const int port = ports(random);
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (const int error = getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &found);
        error != 0) {
      return absl::UnavailableError(
          absl::StrCat("a free port on ", host, ": ", gai_strerror(error)));
    }
    const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> info(found, &freeaddrinfo);
    const int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool bound = fd >= 0 && bind(fd, info->ai_addr, info->ai_addrlen) == 0;
    cause = std::strerror(errno);
    if (fd >= 0) close(fd);
    if (bound) return port;
  }
  return absl::UnavailableError(absl::StrCat("a free port on ", host, ": ", cause));
}

}  // namespace ddpo
