#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "learner/collective/collective.h"

namespace ddpo {

// What every rank passes, in rank order. All ranks call it. In parts, as the ranks' store takes no
// value of 8 MiB or more. Errors are those of Collective::AllGather.
absl::StatusOr<std::vector<std::string>> GatherInParts(Collective& collective,
                                                       const std::string& mine);

// Every rank's message, as by GatherInParts.
template <typename Message>
absl::StatusOr<std::vector<Message>> GatherFromRanks(Collective& collective, const Message& mine) {
  DDPO_ASSIGN_OR_RETURN(const std::vector<std::string> bytes,
                        GatherInParts(collective, mine.SerializeAsString()));
  std::vector<Message> messages(bytes.size());
  for (size_t rank = 0; rank < bytes.size(); ++rank) {
    if (!messages[rank].ParseFromString(bytes[rank])) {
      return absl::InternalError(absl::StrCat("rank ", rank, " sent no ", mine.GetTypeName()));
    }
  }
  return messages;
}

// Rank 0's bytes, on every rank, as by GatherInParts; what the others pass is not looked at.
absl::StatusOr<std::string> BroadcastFromRankZero(Collective& collective, const std::string& bytes);

// OK if every rank has the same value. Otherwise DATA_LOSS says which ranks have which, as in
// "`what` differs: rank 1 of 4 has 5e1f…, ranks 0, 2, 3 have 9c02…".
absl::Status CheckRanksAlike(const std::string& what, const std::vector<std::string>& values);

}  // namespace ddpo
