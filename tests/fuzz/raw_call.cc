#include "tests/fuzz/raw_call.h"

#include <grpcpp/generic/generic_stub.h>

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "tests/testing/grpc_probe.h"

namespace ddpo::fuzz {
namespace {

// Waits for the operation that was started; false when it failed.
bool Await(grpc::CompletionQueue* queue) {
  void* tag = nullptr;
  bool ok = false;
  return queue->Next(&tag, &ok) && ok;
}

}  // namespace

RawAnswer CallRaw(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                  const std::vector<std::string>& messages, std::chrono::milliseconds timeout) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  context.set_deadline(std::chrono::system_clock::now() + timeout);
  grpc::CompletionQueue queue;
  RawAnswer answer;
  const auto call = stub.PrepareCall(&context, method, &queue);
  call->StartCall(nullptr);
  bool open = Await(&queue);
  for (const std::string& message : messages) {
    if (!open) break;
    call->Write(testing::ToByteBuffer(message), nullptr);
    open = Await(&queue);
  }
  if (open) {
    call->WritesDone(nullptr);
    Await(&queue);
  }
  while (true) {
    grpc::ByteBuffer buffer;
    call->Read(&buffer, nullptr);
    if (!Await(&queue)) break;
    answer.messages.push_back(testing::ToString(buffer));
  }
  call->Finish(&answer.status, nullptr);
  Await(&queue);
  return answer;
}

std::string JoinMessages(const std::vector<std::string>& messages) {
  std::string joined;
  for (const std::string& message : messages) {
    joined.push_back(static_cast<char>(message.size() & 0xff));
    joined.push_back(static_cast<char>(message.size() >> 8));
    joined += message;
  }
  return joined;
}

std::vector<std::string> SplitMessages(const std::string& joined) {
  std::vector<std::string> messages;
  for (size_t at = 0; at + 2 <= joined.size();) {
    const size_t length = static_cast<uint8_t>(joined[at]) |
                          static_cast<size_t>(static_cast<uint8_t>(joined[at + 1])) << 8;
    messages.push_back(joined.substr(at + 2, length));
    at += 2 + length;
  }
  return messages;
}

}  // namespace ddpo::fuzz
