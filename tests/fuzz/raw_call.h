#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <vector>

namespace ddpo::fuzz {

struct RawAnswer {
  grpc::Status status;
  std::vector<std::string> messages;
};

// Sends the messages as they are, whatever bytes they hold, says that no more will come, and takes
// every answer. `method` as in `/ddpo.reward.v1.RewardService/Score`; of any kind, as on the wire
// they differ in the number of messages only.
RawAnswer CallRaw(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                  const std::vector<std::string>& messages,
                  std::chrono::milliseconds timeout = std::chrono::seconds(30));

// A list of messages as one string, and back: each after its length in two bytes. Every string is
// some list.
std::string JoinMessages(const std::vector<std::string>& messages);
std::vector<std::string> SplitMessages(const std::string& joined);

}  // namespace ddpo::fuzz
