#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <exception>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "learner/collective/key_value_store.h"

namespace ddpo {
namespace {

absl::Status ToStatus(const std::exception& error, const std::string& what) {
  // The first line says what happened; the rest is LibTorch's own stack trace.
  const std::string full = error.what();
  const std::string message = absl::StrCat(what, ": ", full.substr(0, full.find('\n')));
  const std::string lower = absl::AsciiStrToLower(full);
  if (absl::StrContains(lower, "timeout") || absl::StrContains(lower, "timed out")) {
    return absl::DeadlineExceededError(message);
  }
  return absl::UnavailableError(absl::StrCat("rank 0, which serves the store, is gone: ", message));
}

class TcpKeyValueStore : public KeyValueStore {
 public:
  explicit TcpKeyValueStore(c10::intrusive_ptr<c10d::TCPStore> store) : store_(std::move(store)) {}

  absl::Status Set(const std::string& key, const std::string& value) override {
    try {
      store_->set(key, std::vector<uint8_t>(value.begin(), value.end()));
      return absl::OkStatus();
    } catch (const std::exception& error) {
      return ToStatus(error, absl::StrCat("store: set ", key));
    }
  }

  absl::StatusOr<std::string> Get(const std::string& key, absl::Duration timeout) override {
    try {
      store_->wait({key}, absl::ToChronoMilliseconds(timeout));
      const std::vector<uint8_t> value = store_->get(key);
      return std::string(value.begin(), value.end());
    } catch (const std::exception& error) {
      return ToStatus(error, absl::StrCat("store: get ", key));
    }
  }

  absl::StatusOr<bool> Contains(const std::string& key) override {
    try {
      return store_->check({key});
    } catch (const std::exception& error) {
      return ToStatus(error, absl::StrCat("store: check ", key));
    }
  }

  absl::Status Delete(const std::string& key) override {
    try {
      store_->deleteKey(key);
      return absl::OkStatus();
    } catch (const std::exception& error) {
      return ToStatus(error, absl::StrCat("store: delete ", key));
    }
  }

  absl::StatusOr<int64_t> Count(const std::string& key) override {
    try {
      return store_->add(key, 1);
    } catch (const std::exception& error) {
      return ToStatus(error, absl::StrCat("store: count ", key));
    }
  }

 private:
  const c10::intrusive_ptr<c10d::TCPStore> store_;
};

// A socket that listens on this address alone; LibTorch's own would listen on all.
absl::StatusOr<int> Listen(const std::string& host, uint16_t port) {
  const std::string address = absl::StrCat(host, ":", port);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &found);
      error != 0) {
    return absl::UnavailableError(absl::StrCat("store at ", address, ": ", gai_strerror(error)));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> info(found, &freeaddrinfo);
  const int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
      bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0) {
    return fd;
  }
  const std::string cause = std::strerror(errno);
  if (fd >= 0) close(fd);
  return absl::UnavailableError(absl::StrCat("store: cannot listen on ", address, ": ", cause));
}

}  // namespace

absl::StatusOr<std::unique_ptr<KeyValueStore>> CreateTcpKeyValueStore(
    const TcpKeyValueStoreOptions& options, uint16_t* bound_port) {
  c10d::TCPStoreOptions torch_options;
  torch_options.port = options.port;
  torch_options.isServer = options.is_server;
  torch_options.waitWorkers = false;
  torch_options.timeout = absl::ToChronoMilliseconds(options.timeout);
  std::string host = options.host;
  if (options.is_server) {
    auto fd = Listen(options.listen_host, options.port);
    if (!fd.ok()) return fd.status();
    torch_options.masterListenFd = *fd;  // which is the store's from now on
    host = options.listen_host == "0.0.0.0" ? "127.0.0.1" : options.listen_host;
  }
  try {
    auto store = c10::make_intrusive<c10d::TCPStore>(host, torch_options);
    if (bound_port != nullptr) *bound_port = store->getPort();
    return std::make_unique<TcpKeyValueStore>(std::move(store));
  } catch (const std::exception& error) {
    return ToStatus(error, absl::StrCat("store at ", host, ":", options.port));
  }
}

}  // namespace ddpo
