#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace ddpo {

// A small store that all ranks see: where they meet and leave each other messages. Thread-safe.
class KeyValueStore {
 public:
  virtual ~KeyValueStore() = default;

  virtual absl::Status Set(const std::string& key, const std::string& value) = 0;
  // Waits for the key. DEADLINE_EXCEEDED if it is not set in time, UNAVAILABLE if the store's
  // server is gone.
  virtual absl::StatusOr<std::string> Get(const std::string& key, absl::Duration timeout) = 0;
  virtual absl::StatusOr<bool> Contains(const std::string& key) = 0;
  virtual absl::Status Delete(const std::string& key) = 0;
  // Counts how often it was called with the key, over all ranks, this call included.
  virtual absl::StatusOr<int64_t> Count(const std::string& key) = 0;
};

struct TcpKeyValueStoreOptions {
  std::string host = "127.0.0.1";
  // 0 where is_server: any free port.
  uint16_t port = 0;
  // Rank 0 serves the store, on this host or all of the machine's addresses (0.0.0.0), the others
  // are its clients.
  bool is_server = false;
  std::string listen_host = "127.0.0.1";
  absl::Duration timeout = absl::Seconds(120);
};

// LibTorch's c10d::TCPStore.
absl::StatusOr<std::unique_ptr<KeyValueStore>> CreateTcpKeyValueStore(
    const TcpKeyValueStoreOptions& options, uint16_t* bound_port = nullptr);

// A store whose calls return: one that the inner store has not answered after `patience` (Get:
// after its timeout besides) is UNAVAILABLE, and so are all that follow. LibTorch's client waits
// for ever for a server that hangs.
std::unique_ptr<KeyValueStore> CreateImpatientStore(std::unique_ptr<KeyValueStore> inner,
                                                    absl::Duration patience);

}  // namespace ddpo
