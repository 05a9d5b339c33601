#include "common/rpc/channel.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/support/channel_arguments.h>

#include "common/base/address.h"
#include "common/base/status_macros.h"
#include "common/rpc/credentials.h"

namespace ddpo {

absl::StatusOr<std::shared_ptr<grpc::Channel>> CreateChannel(const std::string& address,
                                                             const ChannelOptions& options) {
  DDPO_ASSIGN_OR_RETURN(const HostPort target, ParseHostPort(address));
  DDPO_ASSIGN_OR_RETURN(const auto credentials,
                        CreateChannelCredentials(options.tls, options.token_file, target));
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(options.max_message_bytes);
  arguments.SetMaxSendMessageSize(options.max_message_bytes);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS,
                   static_cast<int>(absl::ToInt64Milliseconds(options.max_backoff)));
  // A peer that vanished without closing its connection is noticed within half a minute, also on a
  // stream that stays silent for long.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // Channels of one process to one address don't share a broken connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  if (options.wait_for_ready) {
    arguments.SetServiceConfigJSON(R"({"methodConfig":[{"name":[{}],"waitForReady":true}]})");
  }
  if (!options.tls.server_name_override().empty()) {
    arguments.SetSslTargetNameOverride(options.tls.server_name_override());
  }
  return grpc::CreateCustomChannel(address, credentials, arguments);
}

}  // namespace ddpo
