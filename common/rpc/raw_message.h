#pragma once

#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/support/byte_buffer.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ddpo {

// For handlers of streams, which get a message that does not parse, as one with text that is not
// UTF-8, as if it were the stream's end: unless they take bytes and parse them themselves.

// INVALID_ARGUMENT for bytes that are no such message. Empties the buffer.
template <typename Message>
absl::Status ParseMessage(grpc::ByteBuffer* bytes, Message* message) {
  if (grpc::SerializationTraits<Message>::Deserialize(bytes, message).ok()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("a message of the stream is no ",
                                                 Message::descriptor()->full_name(),
                                                 "; is all of its text UTF-8?"));
}

template <typename Message>
grpc::ByteBuffer ToBytes(const Message& message) {
  grpc::ByteBuffer bytes;
  bool own_buffer = false;
  // Fails for messages over 2 GB only, which a stream's limit does not let through.
  (void)grpc::SerializationTraits<Message>::Serialize(message, &bytes, &own_buffer);
  return bytes;
}

}  // namespace ddpo
