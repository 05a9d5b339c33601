#pragma once

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/metrics/reward_server_metrics.h"

namespace ddpo {

struct RewardServiceOptions {
  // Largest width × height that is decoded.
  int64_t max_image_pixels = 16777216;
  // Items of one stream that may be under way; past that the server does not read on.
  int max_stream_items = 64;
  // Work is dropped after this time although its caller named no deadline or a later one.
  absl::Duration max_item_duration = absl::Minutes(10);
  // Calls come with a bearer token that was checked: whoever holds it is one caller, however many
  // connections it opens. Otherwise each connection is one.
  bool callers_have_tokens = false;
  Clock* clock = Clock::Real();
  // Null for none.
  RewardServerMetrics* metrics = nullptr;
};

inline void CountRequest(const RewardServiceOptions& options, absl::string_view scorer,
                         const absl::Status& status) {
  if (options.metrics != nullptr) options.metrics->ForScorer(scorer).CountRequest(status.code());
}

// Whose turn a call's items take. Not to be shown to anyone.
inline std::string CallerOf(const grpc::CallbackServerContext& context,
                            const RewardServiceOptions& options) {
  if (options.callers_have_tokens) {
    const auto token = context.client_metadata().find("authorization");
    if (token != context.client_metadata().end()) {
      return std::string(token->second.data(), token->second.size());
    }
  }
  return context.peer();
}

// When an item that comes now is not worth computing any more.
inline absl::Time ItemDeadline(const grpc::CallbackServerContext& context,
                               const RewardServiceOptions& options) {
  return std::min(absl::FromChrono(context.deadline()),
                  options.clock->Now() + options.max_item_duration);
}

}  // namespace ddpo
