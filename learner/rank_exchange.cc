#include "learner/rank_exchange.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"

namespace ddpo {
namespace {

constexpr size_t kPartBytes = 4 << 20;

}  // namespace

absl::StatusOr<std::vector<std::string>> GatherInParts(Collective& collective,
                                                       const std::string& mine) {
  if (collective.size() == 1) return std::vector<std::string>{mine};
  // The first part comes with the size of the whole, so that small values need one round.
  DDPO_ASSIGN_OR_RETURN(
      std::vector<std::string> parts,
      collective.AllGather(absl::StrCat(mine.size(), "\n", mine.substr(0, kPartBytes))));
  std::vector<std::string> values;
  uint64_t longest = 0;
  for (size_t rank = 0; rank < parts.size(); ++rank) {
    const size_t line = parts[rank].find('\n');
    uint64_t size = 0;
    if (line == std::string::npos || !absl::SimpleAtoi(parts[rank].substr(0, line), &size)) {
      return absl::InternalError(absl::StrCat("rank ", rank, " sent no size"));
    }
    longest = std::max(longest, size);
    values.push_back(parts[rank].substr(line + 1));
  }
  for (uint64_t begin = kPartBytes; begin < longest; begin += kPartBytes) {
    const std::string part = begin < mine.size() ? mine.substr(begin, kPartBytes) : "";
    DDPO_ASSIGN_OR_RETURN(parts, collective.AllGather(part));
    for (size_t rank = 0; rank < parts.size(); ++rank) values[rank] += parts[rank];
  }
  return values;
}

absl::StatusOr<std::string> BroadcastFromRankZero(Collective& collective,
                                                  const std::string& bytes) {
  DDPO_ASSIGN_OR_RETURN(std::vector<std::string> values,
                        GatherInParts(collective, collective.rank() == 0 ? bytes : ""));
  return std::move(values[0]);
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
