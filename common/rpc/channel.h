#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ddpo/config/v1/security.pb.h"

namespace ddpo {

// Largest message that our servers and clients take unless told otherwise.
inline constexpr int kMaxMessageBytes = 64 << 20;

struct ChannelOptions {
  int max_message_bytes = kMaxMessageBytes;
  // Longest pause between two tries to connect.
  absl::Duration max_backoff = absl::Seconds(2);
  // Calls wait until their deadline for a connection, where otherwise the first try that fails ends
  // them as UNAVAILABLE. For callers that don't retry.
  bool wait_for_ready = false;
  // As in CreateChannelCredentials: without, plain text and no token.
  config::v1::TlsConfig tls = {};
  std::string token_file = "";
};

// A channel to `host:port`. Connects when first used, and again after a break. INVALID_ARGUMENT for
// an address without a port, and as CreateChannelCredentials.
absl::StatusOr<std::shared_ptr<grpc::Channel>> CreateChannel(const std::string& address,
                                                             const ChannelOptions& options = {});

}  // namespace ddpo
