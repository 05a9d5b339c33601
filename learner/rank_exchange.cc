#include "learner/rank_exchange.h"

#include <cstdint>
#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"

namespace ddpo {
namespace {

constexpr size_t kPartBytes = 4 << 20;

}  // namespace

absl::StatusOr<std::string> BroadcastFromRankZero(Collective& collective,
                                                  const std::string& bytes) {
  if (collective.size() == 1) return bytes;
  const bool sends = collective.rank() == 0;
  DDPO_ASSIGN_OR_RETURN(const std::vector<std::string> sizes,
                        collective.AllGather(sends ? absl::StrCat(bytes.size()) : ""));
  uint64_t size = 0;
  if (!absl::SimpleAtoi(sizes[0], &size)) {
    return absl::InternalError(absl::StrCat("rank 0 sent `", sizes[0], "` for a size"));
  }
  std::string received;
  for (size_t begin = 0; begin < size; begin += kPartBytes) {
    DDPO_ASSIGN_OR_RETURN(std::vector<std::string> parts,
                          collective.AllGather(sends ? bytes.substr(begin, kPartBytes) : ""));
    received += parts[0];
  }
  return received;
}

absl::Status CheckRanksAlike(const std::string& what, const std::vector<std::string>& values) {
  std::map<std::string, std::vector<size_t>> ranks_by_value;
  for (size_t rank = 0; rank < values.size(); ++rank) ranks_by_value[values[rank]].push_back(rank);
  if (ranks_by_value.size() <= 1) return absl::OkStatus();
  const auto describe = [&](std::string* out, const auto& entry) {
    const auto& [value, ranks] = entry;
    absl::StrAppend(out, ranks.size() == 1 ? "rank " : "ranks ", absl::StrJoin(ranks, ", "), " of ",
                    values.size(), ranks.size() == 1 ? " has " : " have ", value);
  };
  return absl::DataLossError(
      absl::StrCat(what, " differs: ", absl::StrJoin(ranks_by_value, ", ", describe)));
}

}  // namespace ddpo
