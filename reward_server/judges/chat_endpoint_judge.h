#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "reward_server/judges/image_judge.h"

namespace ddpo {

struct ChatEndpointOptions {
  // Up to and without `/chat/completions`, as in `http://127.0.0.1:8000/v1`.
  std::string base_url;
  // The model's name at the endpoint.
  std::string model;
  // File whose first line is the bearer token; empty for none.
  std::string api_key_file;
  // For each request, connecting included.
  absl::Duration timeout = absl::Seconds(60);
  // Further tries after a connection error, a timeout, 429 or 5xx.
  int max_retries = 3;
  // Wait before the first of them; doubles each time, unless the answer says Retry-After.
  absl::Duration retry_delay = absl::Milliseconds(500);
  // Questions that are asked side by side.
  int max_parallel_requests = 16;
  // Largest answer that is read.
  size_t max_response_bytes = 1 << 20;
};

// A judge behind any OpenAI-compatible chat endpoint with image input (vLLM, SGLang, llama.cpp).
// Images travel as PNG data URLs; the temperature is 0. Every failure is a status:
//   UNAUTHENTICATED 401 · PERMISSION_DENIED 403 · NOT_FOUND 404 · INVALID_ARGUMENT other 4xx
//   RESOURCE_EXHAUSTED 429 · UNAVAILABLE 5xx and connections · DEADLINE_EXCEEDED timeout
//   INTERNAL an answer without choices[0].message.content
absl::StatusOr<std::unique_ptr<ImageJudge>> CreateChatEndpointJudge(
    const ChatEndpointOptions& options);

}  // namespace ddpo
