#pragma once

#include <string>
#include <vector>

#include "tests/fuzz/mutate.h"
#include "tests/fuzz/raw_call.h"

namespace ddpo::fuzz {

// Changes one of the messages of a stream, or which there are and in what order.
inline std::string MutateMessages(const google::protobuf::Message& prototype,
                                  const std::string& joined, Random& random) {
  std::vector<std::string> messages = SplitMessages(joined);
  if (messages.empty()) return JoinMessages({MutateBytes("", random)});
  const size_t at = random.Below(messages.size());
  switch (random.Below(8)) {
    case 0:
      messages.erase(messages.begin() + static_cast<std::ptrdiff_t>(at));
      break;
    case 1:
      messages.push_back(messages[at]);
      break;
    case 2:
      std::swap(messages[at], messages[random.Below(messages.size())]);
      break;
    default:
      messages[at] = MutateSerialized(prototype, messages[at], random);
  }
  return JoinMessages(messages);
}

}  // namespace ddpo::fuzz
